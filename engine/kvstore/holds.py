"""Files that no process may delete while this one lives: a shared lock on each. In: paths. The
system lets go of them when the process ends, in whatever way.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

from ds4_agent.engine.kvstore.durable import open_regular

__all__ = ["Holds"]


class Holds:
    """At most `most` held files: then the one that was held first is let go. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: dict[Path, int] = {}

    def add(self, path: Path) -> None:
        """Hold a file from now on; a file that is not there, or is being deleted, is not held."""
        with self._lock, suppress(OSError):
            descriptor = open_regular(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return
            self._let_go(path)
            self._held[path] = descriptor
            while len(self._held) > self._most:
                self._let_go(next(iter(self._held)))

    def release(self, path: Path) -> None:
        """Hold a file no longer."""
        with self._lock:
            self._let_go(path)

    def close(self) -> None:
        """Hold nothing any more. Safe to call twice."""
        with self._lock:
            for path in list(self._held):
                self._let_go(path)

    def _let_go(self, path: Path) -> None:
        descriptor = self._held.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)
