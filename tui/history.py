"""What the user typed in this directory, in all its sessions: for Up, and for the search.

In: a file of this user, prompts as they are sent. Out: prompts, oldest first. One JSON line a
prompt, appended in one write, so that several sessions may share it; a damaged line costs only
itself, and a history that cannot be written only itself.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["History", "history_file", "matching"]

KEPT = 1000  # prompts
LONGEST = 16 * 1024  # characters of one that is kept: a pasted log is no prompt to look for
LARGEST = 4 * 1024 * 1024  # bytes of the file that are read


def history_file(state: Path, directory: Path) -> Path:
    """The file of a working directory."""
    place = os.path.realpath(directory).encode("utf-8", "surrogateescape")
    return state / "history" / f"{hashlib.sha256(place).hexdigest()[:24]}.jsonl"


class History:
    """The prompts of a directory. `file` None: those of this run only."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._entries: list[str] | None = None if file else []

    @property
    def entries(self) -> list[str]:
        """Oldest first, none twice in a row; read when it is first wanted."""
        if self._entries is None:
            assert self._file is not None
            self._entries = _load(self._file)
        return self._entries

    def add(self, text: str) -> None:
        """The user sent `text`."""
        entries = self.entries
        if not text.strip() or (entries and entries[-1] == text):
            return
        entries.append(text)
        if self._file is not None and len(text) <= LONGEST:
            with suppress(OSError):
                _append(self._file, text)


def matching(entries: Sequence[str], query: str = "") -> list[str]:
    """Those that hold every word of `query`, in capitals or not; newest first, each once."""
    words = query.casefold().split()
    newest = dict.fromkeys(reversed(entries))
    return [text for text in newest if all(word in text.casefold() for word in words)]


def _load(file: Path) -> list[str]:
    try:
        data = _read(file)
    except OSError:
        return []
    entries: list[str] = []
    lines = data.split(b"\n")
    for line in lines:
        try:
            text = json.loads(line)["text"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(text, str) and text.strip() and (not entries or entries[-1] != text):
            entries.append(text)
    if len(lines) > 2 * KEPT:
        with suppress(OSError):
            _replace(file, entries[-KEPT:])
    return entries[-KEPT:]


def _read(file: Path) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as opened:
        size = os.fstat(descriptor).st_size
        opened.seek(max(0, size - LARGEST))
        return opened.read(LARGEST)


def _append(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(file, flags, 0o600)
    try:
        os.write(descriptor, _line(text))
    finally:
        os.close(descriptor)


def _replace(file: Path, entries: Sequence[str]) -> None:
    new = file.with_suffix(f".{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(new, flags, 0o600), "wb") as opened:
        opened.write(b"".join(map(_line, entries)))
    os.replace(new, file)


def _line(text: str) -> bytes:
    # A newline in front as well: what another process left unfinished ends there.
    return b"\n" + json.dumps({"text": text}).encode("ascii") + b"\n"
