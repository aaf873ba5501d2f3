"""Who may have unfinished changes in the files of a directory: one item of one batch at a time.

In: a lock file a directory, in the user's state. Out: a context that holds it against the other
items of this process and against other batches; the kernel frees what a killed process held.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ds4_agent.agent.errors import OutputError
from ds4_agent.sessions.lock import NO_LOCKS
from ds4_agent.sessions.private import make_private

__all__ = ["StoppedError", "TreeLock"]

POLL_S = 0.05


class StoppedError(Exception):
    """The batch is being stopped; the item is left as if it had not begun."""


class TreeLock:
    """The lock of one directory. `close` it."""

    def __init__(self, folder: Path, root: Path) -> None:
        """`folder` holds the lock files. Raises OutputError."""
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:24]
        try:
            make_private(folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(folder / f"{name}.lock", flags, 0o600)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
        self._own = threading.Lock()

    @contextmanager
    def held(self, stop: threading.Event) -> Iterator[None]:
        """Hold it, once it is free. Raises StoppedError where `stop` is set first."""
        while not self._own.acquire(timeout=POLL_S):
            if stop.is_set():
                raise StoppedError
        try:
            self._wait(stop)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._own.release()

    def close(self) -> None:
        os.close(self._file)

    def _wait(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stop.wait(POLL_S)
            except OSError as error:
                if error.errno in (*NO_LOCKS, errno.EINVAL):
                    return
                raise
            else:
                return
        raise StoppedError
