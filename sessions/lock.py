"""One writer per session: a lock that dies with its process.

In: a session's directory. Out: the right to append to its logs, or who has it. The kernel holds the
lock (flock on `<session>/lock`), so a killed process leaves none behind; the file says who took it,
for the message only: `{"pid": 4711, "since": seconds since 1970}`. It is never removed but with the
session.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.sessions.errors import SessionInUseError
from ds4_agent.sessions.private import make_private

__all__ = ["Holder", "SessionLock"]

FILE = "lock"
LONGEST = 200  # bytes of it that are read
# What a file system answers that knows no locks (some network and FUSE ones): there is nothing to
# hold then, and refusing every session would help nobody.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as it says itself; zeros where that cannot be read."""

    pid: int = 0
    since: float = 0.0  # seconds since 1970


class SessionLock:
    """The lock of one session. Not for two threads at once."""

    def __init__(self, directory: Path) -> None:
        """Nothing is created or held yet."""
        self.directory = directory
        self._file = -1

    @property
    def is_held(self) -> bool:
        return self._file >= 0

    def acquire(self) -> None:
        """Hold the lock until `release` or the end of the process; makes the directory if there is
        none. Safe to call again. Raises SessionInUseError when another has it, OSError."""
        while not self.is_held:
            make_private(self.directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(self.directory / FILE, flags, 0o600)
            try:
                self._lock(file)
                if self._is_in_place(file):
                    self._file, file = file, -1
                    self._sign()
            finally:
                if file >= 0:
                    os.close(file)

    def release(self) -> None:
        """Safe to call twice."""
        if self.is_held:
            os.close(self._file)
            self._file = -1

    def _lock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            error = SessionInUseError(self.directory.name, holder.pid, holder.since)
            raise error from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    def _is_in_place(self, file: int) -> bool:
        """False where the session was removed in between, and its lock with it."""
        try:
            return os.path.samestat(os.fstat(file), os.lstat(self.directory / FILE))
        except FileNotFoundError:
            return False

    def _sign(self) -> None:
        text = json.dumps({"pid": os.getpid(), "since": round(time.time(), 3)})
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)
        except OSError:  # a full disk: the lock holds without a name
            return


def _holder(file: int) -> Holder:
    try:
        record = json.loads(os.pread(file, LONGEST, 0))
        return Holder(int(record["pid"]), float(record["since"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Holder()
