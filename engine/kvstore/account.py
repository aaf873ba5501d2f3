"""How much this process may still write into a store, without looking at every file each time. In:
the lock of the store, held; the sizes of what is written. Out: nothing, or FullError.

What was seen of the directory stays true while nobody else writes, and who wrote last stands in
the lock file: 16 random bytes of that process.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from ds4_agent.engine.kvstore.eviction import Room, Space, make_room
from ds4_agent.engine.kvstore.layout import occupied

__all__ = ["Account", "FullError"]


class FullError(Exception):
    """There is no room and none can be made. The message says why, for the user."""


class Account:
    """Used by one thread, between `begin` and `end` only with the store's lock held."""

    def __init__(self, directory: Path, budget: int, space: Callable[[Path], Space]) -> None:
        self._directory = directory
        self._budget = budget
        self._space = space
        self._room = Room()
        self._mark = secrets.token_bytes(16)
        self._temporary = ""
        self._written = 0

    def begin(self, lock: int, temporary: str) -> None:
        """A file will be written, under the label `temporary` at first. Raises OSError."""
        if os.pread(lock, len(self._mark), 0) != self._mark:
            self._room = Room()
        os.pwrite(lock, self._mark, 0)
        usable = max(0, self._space(self._directory).usable)
        self._room = Room(min(self._room.size, usable), self._room.files)
        self._temporary, self._written = temporary, 0

    def take(self, count: int) -> None:
        """`count` bytes will be appended to the file. Raises FullError, OSError."""
        before, self._written = occupied(self._written), self._written + count
        if self._written > self._budget // 2:
            # Not everything else is deleted for one file, which might then not even fit.
            raise FullError("its budget is too small for this session; raise it: [cache] budget")
        needed = occupied(self._written) - before
        if needed > self._room.size or self._room.files < 1:
            space = self._space(self._directory)
            self._room = make_room(self._directory, needed, self._budget, space, self._temporary)
            if needed > self._room.size or self._room.files < 1:
                raise FullError(self._reason(needed))
        self._room = Room(self._room.size - needed, self._room.files)

    def end(self, *, is_kept: bool) -> None:
        """The file has its name now, or is no more."""
        self._room = Room(self._room.size, self._room.files - 1) if is_kept else Room()

    def _reason(self, needed: int) -> str:
        if self._space(self._directory).usable < needed:
            return f"less than 5 % of the disk is free at {self._directory}"
        return "running sessions use its whole budget; raise it: [cache] budget"
