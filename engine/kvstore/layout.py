"""What stands where in a store directory, and what a reading of it finds.

    lock                    held by the process that writes; its content says who wrote last
    tmp/                    files being written; without the lock's holder they are left-overs
    bad/                    files that were not what had been stored, and `log`, a line for each
    <folder>/<name>         stored files; a folder is one or two names deep
    …/places/<n>-<kind>-…   a payload that begins with a line of JSON: the `rows` it needs
    …/rows/<name>           what places need; several may need the same

Nothing here changes anything, or raises what the disk does.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.engine.kvstore.durable import open_regular
from ds4_agent.engine.kvstore.fileformat import DamagedError, read_first_line

__all__ = [
    "BAD",
    "LOCK",
    "LOG",
    "PLACES",
    "ROWS",
    "TEMPS",
    "Stored",
    "Survey",
    "is_regular",
    "kind_of",
    "labelled",
    "located",
    "needed_rows",
    "occupied",
    "place_header",
    "read_header_line",
    "survey",
]

LOCK, TEMPS, BAD = "lock", "tmp", "bad"
LOG = "log"
PLACES, ROWS = "places", "rows"
BLOCK = 4096  # a file takes whole blocks of the disk
_SIMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_KIND = re.compile(r"\d+-([a-z])-")


@dataclass(frozen=True)
class Stored:
    """One stored file: its path below the directory, the bytes it takes, when it was used last."""

    label: str  # folder/name
    size: int
    used: float  # seconds since 1970

    @property
    def is_place(self) -> bool:
        return self.label.split("/")[-2] == PLACES

    @property
    def is_bad(self) -> bool:
        return self.label.startswith(f"{BAD}/")

    @property
    def is_row(self) -> bool:
        return self.label.split("/")[-2] == ROWS


@dataclass(frozen=True)
class Survey:
    """All files below a store directory. Sizes are bytes in whole blocks."""

    stored: Sequence[Stored]
    temps: Sequence[Stored]
    bad: Sequence[Stored]
    other: int  # bytes of all that is none of these

    @property
    def size(self) -> int:
        """The bytes that the budget is compared with."""
        files = (*self.stored, *self.temps, *self.bad)
        return self.other + sum(file.size for file in files)


def located(directory: Path, folder: str, name: str = "") -> Path:
    """The path of a folder or of a file. Raises ValueError for a name that could lead elsewhere."""
    return directory / labelled(folder, name)


def labelled(folder: str, name: str = "") -> str:
    """The same path as text, from the store directory on. Raises ValueError as `located`."""
    parts = folder.split("/")
    if len(parts) > 2 or parts[0] in (TEMPS, BAD, LOCK) or not all(map(_SIMPLE.match, parts)):
        raise ValueError(f"no folder of a store: {folder!r}")
    if name and not _SIMPLE.match(name):
        raise ValueError(f"no name of a stored file: {name!r}")
    return f"{folder}/{name}" if name else folder


def occupied(size: int) -> int:
    """The bytes that a file of `size` bytes takes of the disk."""
    return -(-size // BLOCK) * BLOCK


def is_regular(path: Path | str) -> bool:
    """Whether a regular file, and no link to one, stands there."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def kind_of(label: str) -> str:
    """The letter of a place's name that says why it was stored, "" where there is none."""
    found = _KIND.match(label.rpartition("/")[2])
    return found[1] if found else ""


def survey(directory: Path) -> Survey:
    """Look at every file. What cannot be looked at counts as not there."""
    stored: list[Stored] = []
    temps: list[Stored] = []
    bad: list[Stored] = []
    other = 0
    for file in _files(directory, ""):
        parts = file.label.split("/")
        if parts[0] in (TEMPS, BAD) and parts != [BAD, LOG]:
            (temps if parts[0] == TEMPS else bad).append(file)
        elif parts[0] != BAD and len(parts) in (2, 3) and all(map(_SIMPLE.match, parts)):
            stored.append(file)
        else:
            other += file.size
    return Survey(stored, temps, bad, other)


def place_header(line: bytes) -> dict[str, object]:
    """The JSON of a place's first line; {} where it is none."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def needed_rows(label: str, line: bytes) -> list[str]:
    """The labels of the row files that the place `label` with this first line needs."""
    rows = place_header(line).get("rows")
    if not isinstance(rows, list):
        return []
    folder = f"{label.rsplit('/', 2)[0]}/{ROWS}" if label.count("/") == 2 else ROWS
    return [f"{folder}/{row}" for row in rows if isinstance(row, str) and _SIMPLE.match(row)]


def read_header_line(directory: Path, label: str) -> bytes:
    """The first line of a place as it stands there, unverified; b"" where there is none."""
    try:
        descriptor = open_regular(directory / label)
    except OSError:
        return b""
    try:
        return read_first_line(descriptor)
    except (OSError, DamagedError):
        return b""
    finally:
        os.close(descriptor)


def _files(directory: Path, below: str) -> Iterator[Stored]:
    """Everything below that is no directory. Links are not followed."""
    try:
        with os.scandir(directory) as entries:
            found = list(entries)
    except OSError:
        return
    for entry in found:
        label = f"{below}{entry.name}"
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(directory / entry.name, f"{label}/")
            else:
                status = entry.stat(follow_symlinks=False)
                yield Stored(label, occupied(status.st_size), status.st_mtime)
        except OSError:  # it has just gone
            continue
