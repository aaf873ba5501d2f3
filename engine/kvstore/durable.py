"""Writing so that a crash, of a process or of the machine, leaves a whole file or none; and the
lock by which one process at a time writes into a store. In: paths, descriptors. All of it may raise
OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BusyError", "locked", "make_private", "open_regular", "sync_directory", "sync_file"]

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # never waits for a pipe
_POLL = 0.02  # seconds between two tries to get the lock


class BusyError(Exception):
    """Another process holds the lock."""


def make_private(directory: Path) -> None:
    """Create a directory and those above it, 0700, each on the disk before the next."""
    missing = [path for path in (directory, *directory.parents) if not path.is_dir()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)


def open_regular(path: Path | str) -> int:
    """A descriptor to read a regular file; a link or a pipe in its place is an OSError (ELOOP)."""
    descriptor = os.open(path, _READ)
    if os.path.isfile(descriptor):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ELOOP, "not a regular file")


def sync_file(descriptor: int) -> None:
    """What was written is on the disk before anything that is written later."""
    if sys.platform == "darwin":
        try:
            # fsync does not reach the disk there. A barrier orders, which is all a cache needs, and
            # takes a tenth of the time of F_FULLFSYNC; 85 is F_BARRIERFSYNC.
            fcntl.fcntl(descriptor, 85)
        except OSError:
            os.fsync(descriptor)  # not every file system has it
    else:
        os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """The names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, wait: float) -> Iterator[int]:
    """Hold the lock file `path`, created where missing; yields its descriptor.

    Waits for another process at most `wait` seconds, then raises BusyError. A process that ends in
    any way lets go of it.
    """
    deadline = time.monotonic() + wait
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if _is_taken(descriptor, deadline) and _is_at(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_taken(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        if time.monotonic() >= deadline:
            raise BusyError
        time.sleep(_POLL)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the lock still has its name: else another process may hold one of that name too."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
