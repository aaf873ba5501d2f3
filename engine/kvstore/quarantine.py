"""Files that are not what was stored: moved to `bad/` on sight, so that they are read once, and
counted there in `log`, a line for each. Only the newest few are kept to be looked at. In: the store
directory, the file's label and a reason. It raises nothing: a disk may refuse all of this.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ds4_agent.engine.kvstore.durable import make_private
from ds4_agent.engine.kvstore.layout import BAD, LOG

__all__ = ["bad_count", "set_aside"]

MOST_FILES = 16
MOST_BYTES = 64 << 20
LONGEST_LOG = 1 << 20


def set_aside(directory: Path, label: str, seen: os.stat_result, reason: str) -> bool:
    """Move the file that was `seen` under `label` out of the way; False where it has gone."""
    path, bad = directory / label, directory / BAD
    with suppress(OSError):
        if not os.path.samestat(os.stat(path, follow_symlinks=False), seen):
            return False  # somebody else did, and stored it again
        try:
            make_private(bad)
            os.rename(path, bad / f"{label.replace('/', '+')[:200]}.{secrets.token_hex(4)}")
        except OSError:
            os.unlink(path)  # no room for another directory: then it is not kept
        with suppress(OSError):
            _note(bad, f"{label}: {reason}")
            _cap(bad)
        return True
    return False


def bad_count(directory: Path) -> int:
    """How many files were set aside since the store was made."""
    try:
        return (directory / BAD / LOG).read_bytes().count(b"\n")
    except OSError:
        return 0


def _note(bad: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(bad / LOG, flags, 0o600)
    try:
        if os.fstat(descriptor).st_size < LONGEST_LOG:
            os.write(descriptor, text.replace("\n", " ").encode() + b"\n")
    finally:
        os.close(descriptor)


def _cap(bad: Path) -> None:
    """Delete all but the newest files. Renaming sets the time of change."""
    with os.scandir(bad) as entries:
        files = [(e.stat(follow_symlinks=False), e.path) for e in entries if e.name != LOG]
    size = 0
    for number, (status, path) in enumerate(sorted(files, key=lambda f: -f[0].st_ctime_ns)):
        size += status.st_size
        if number >= MOST_FILES or (size > MOST_BYTES and number > 0):
            with suppress(OSError):
                os.unlink(path)
