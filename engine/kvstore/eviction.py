"""Keeping a store within its budget, and off the last of the disk. In: the directory, what is about
to be written, the limits. Out: how much may be written now, after deleting what is least needed.

Files that cannot be of use go first (left-overs of writing, damaged files, rows that no place
needs, places that miss rows), then places: temporary ones, then those of prompts and answers, then
those of system prompts, each by when they were used last, and with a place the rows that only it
needed. A file that some process holds (`flock`) is never deleted. The caller has the store's lock.
"""

from __future__ import annotations

import fcntl
import os
from array import array
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.engine.kvstore.durable import open_regular
from ds4_agent.engine.kvstore.layout import (
    Stored,
    Survey,
    is_regular,
    kind_of,
    needed_rows,
    read_header_line,
    survey,
)

__all__ = [
    "MOST_FILES",
    "Evicted",
    "Needs",
    "Room",
    "Space",
    "delete",
    "disk_space",
    "evict",
    "make_room",
    "useless_files",
]

MOST_FILES = 20_000  # reading a directory of more takes longer than computing again what is small
_LOW = 7 / 8  # where there is too much, down to this part of the limit, so that it lasts
_RESERVE = 20  # one part in so many of the disk is never used
_RANKS = {"t": 0, "s": 2}  # of the kinds of places; the others are between


@dataclass(frozen=True)
class Space:
    """Bytes of a disk, and those of them that are free for us."""

    total: int
    free: int

    @property
    def usable(self) -> int:
        """What may be written before the reserve is touched; negative once it is."""
        return self.free - self.total // _RESERVE


@dataclass(frozen=True)
class Room:
    """What may be written now: bytes in whole blocks, and files."""

    size: int = 0
    files: int = 0


@dataclass(frozen=True)
class Evicted:
    """Files deleted, and the bytes they took."""

    files: int = 0
    size: int = 0


def disk_space(directory: Path) -> Space:
    """Of the disk that `directory` is on. Raises OSError."""
    status = os.statvfs(directory)
    return Space(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


def make_room(directory: Path, need: int, budget: int, space: Space, temporary: str = "") -> Room:
    """Delete until `need` bytes can be written; the room is less where too much of it is held.

    `temporary` is the label of the file being written: every other temporary file is deleted.
    """
    found = survey(directory)
    delete(directory, (file for file in found.temps if file.label != temporary))
    found = survey(directory)
    limit = min(budget, found.size + space.usable)
    is_over = found.size + need > limit or len(found.stored) >= MOST_FILES
    if is_over and need <= limit:  # else nothing that can be deleted would be enough
        size, files = min(limit - need, int(limit * _LOW)), int(MOST_FILES * _LOW)
        evict(directory, found, Needs(directory, found), size, files)
        found = survey(directory)
    return Room(limit - found.size, MOST_FILES - len(found.stored))


class Needs:
    """Which row files each place needs, as it stands in their first lines, unverified."""

    def __init__(self, directory: Path, found: Survey) -> None:
        self._rows = [file for file in found.stored if file.is_row]
        numbers = {row.label: number for number, row in enumerate(self._rows)}
        self._users = [0] * len(self._rows)
        self._of_place: dict[str, array[int]] = {}  # a number a row: thousands of places need many
        self._broken: set[str] = set()
        for place in found.stored:
            if place.is_place:
                line = read_header_line(directory, place.label)
                needed = [numbers.get(row) for row in needed_rows(place.label, line)]
                if not line or None in needed:
                    self._broken.add(place.label)
                self._of_place[place.label] = array("I", (n for n in needed if n is not None))
                for number in self._of_place[place.label]:
                    self._users[number] += 1

    def is_broken(self, place: Stored) -> bool:
        """Whether a row that the place needs is missing."""
        return place.label in self._broken

    def rows_of(self, place: Stored) -> list[Stored]:
        """The rows a place needs and has."""
        return [self._rows[number] for number in self._of_place.get(place.label, ())]

    def unneeded(self) -> list[Stored]:
        """The rows that no place needs."""
        return [row for row, users in zip(self._rows, self._users, strict=True) if not users]

    def deleted(self, place: Stored) -> list[Stored]:
        """Told that a place is gone: the rows that only it needed."""
        alone = []
        for number in self._of_place.pop(place.label, ()):
            self._users[number] -= 1
            if not self._users[number]:
                alone.append(self._rows[number])
        return alone


def evict(directory: Path, found: Survey, needs: Needs, size: int, files: int) -> Evicted:
    """Delete until what is left of `found` takes at most `size` bytes in at most `files` files.

    What is of no use goes even where the limits are kept already.
    """
    useless = useless_files(found, needs)
    labels = {file.label for file in useless}
    others = (file for file in found.stored if not file.is_row and file.label not in labels)
    queue, places = deque(useless), deque(sorted(others, key=_use))
    left_size, left_files, deleted = found.size, len(found.stored), 0
    while queue or (places and (left_size > size or left_files > files)):
        file = queue.popleft() if queue else places.popleft()
        if delete(directory, [file]):
            deleted += 1
            left_size -= file.size
            left_files -= not file.is_bad
            queue.extend(needs.deleted(file))
    return Evicted(deleted, found.size - left_size)


def useless_files(found: Survey, needs: Needs) -> list[Stored]:
    """What nobody will read again: damaged files, rows no place needs, places that miss rows."""
    broken = [file for file in found.stored if needs.is_broken(file)]
    return [*found.bad, *needs.unneeded(), *broken]


def delete(directory: Path, files: Iterable[Stored]) -> int:
    """Delete those that no process holds; returns how many these were."""
    return sum(_delete(directory / file.label) for file in files)


def _delete(path: Path) -> bool:
    try:
        if not is_regular(path):
            os.unlink(path)
            return True
        descriptor = open_regular(path)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    with suppress(OSError):  # the last file of a model that is no longer used
        path.parent.rmdir()
        path.parent.parent.rmdir()
    return True


def _use(place: Stored) -> tuple[int, float]:
    return _RANKS.get(kind_of(place.label), 1), place.used
