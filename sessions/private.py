"""Directories of this user alone, and what reaches the disk itself.

In: paths and descriptors. Out: directories of 0700 that outlive a power cut, synced files. Raises
OSError.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["make_private", "sync", "sync_directory"]


def make_private(directory: Path) -> None:
    """Make a directory and those above it; nothing where it is there."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)


def sync(descriptor: int) -> None:
    """What was written is on the disk itself when this returns."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # macOS, whose fsync stops at the drive's own cache
        try:
            fcntl.fcntl(descriptor, full)
        except OSError:  # a file system without it
            pass
        else:
            return
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """The names in `directory` are on the disk itself when this returns."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
