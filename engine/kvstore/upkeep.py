"""What a person may want of a store: to see what is in it, to have every file checked, to make it
smaller, to empty it. In: the store directory. Out: plain facts. Safe beside running agents, who
keep what they hold. Raises StoreError where a directory cannot be changed now.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.engine.errors import StoreError
from ds4_agent.engine.kvstore.durable import BusyError, locked
from ds4_agent.engine.kvstore.eviction import Evicted, Needs, delete, disk_space, evict
from ds4_agent.engine.kvstore.layout import (
    BAD,
    LOCK,
    LOG,
    kind_of,
    place_header,
    read_header_line,
    survey,
)
from ds4_agent.engine.kvstore.quarantine import bad_count
from ds4_agent.engine.kvstore.reading import read_stored

__all__ = ["Facts", "Place", "Pruned", "Verified", "clear", "facts", "places", "prune", "verify"]

KINDS = {"s": "system", "p": "prompt", "a": "answer", "t": "temporary"}
WAIT = 10.0  # seconds for an agent that writes


@dataclass(frozen=True)
class Place:
    """A stored place: the state behind a number of tokens."""

    root: str  # the folder: equal for equal weights, tokenizer, numerics and format
    name: str
    kind: str  # system, prompt, answer, temporary (within a long prefill), other
    tokens: int
    size: int  # bytes of its own
    row_size: int  # bytes of the rows it needs, which others may need as well
    used: float  # seconds since 1970
    is_complete: bool  # else rows are missing, and it is of no use


@dataclass(frozen=True)
class Facts:
    """A store in numbers. Sizes are bytes."""

    size: int  # of everything below the directory: what the budget is compared with
    places: Mapping[str, int]  # by kind
    rows: int
    row_size: int
    unneeded_rows: int
    temporary_files: int
    bad_files: int  # kept in bad/
    damaged: int  # ever set aside
    roots: int
    disk_free: int


@dataclass(frozen=True)
class Verified:
    """What reading every file found."""

    files: int
    size: int  # bytes of payload
    damaged: Sequence[tuple[str, str]]  # folder/name, and in what; they are in bad/ now
    incomplete: Sequence[str]  # places that miss rows


@dataclass(frozen=True)
class Pruned:
    """What was deleted, and what is left."""

    files: int
    size: int
    files_left: int
    size_left: int


def places(directory: Path) -> list[Place]:
    """Every stored place, the one used last first. Reads first lines only."""
    found = survey(directory)
    needs = Needs(directory, found)
    listed = []
    for file in found.stored:
        if file.is_place:
            folder, _, name = file.label.rpartition("/")
            tokens = place_header(read_header_line(directory, file.label)).get("tokens")
            listed.append(
                Place(
                    root=folder.split("/")[0],
                    name=name,
                    kind=KINDS.get(kind_of(file.label), "other"),
                    tokens=tokens if isinstance(tokens, int) else 0,
                    size=file.size,
                    row_size=sum(row.size for row in needs.rows_of(file)),
                    used=file.used,
                    is_complete=not needs.is_broken(file),
                )
            )
    return sorted(listed, key=lambda place: place.used, reverse=True)


def facts(directory: Path) -> Facts:
    """Count what is there. A directory that does not exist is an empty store."""
    found = survey(directory)
    kinds = Counter(KINDS.get(kind_of(f.label), "other") for f in found.stored if f.is_place)
    rows = [file for file in found.stored if file.is_row]
    return Facts(
        size=found.size,
        places={kind: kinds[kind] for kind in (*KINDS.values(), "other") if kinds[kind]},
        rows=len(rows),
        row_size=sum(row.size for row in rows),
        unneeded_rows=len(Needs(directory, found).unneeded()),
        temporary_files=len(found.temps),
        bad_files=len(found.bad),
        damaged=bad_count(directory),
        roots=len({file.label.split("/")[0] for file in found.stored}),
        disk_free=_free(directory),
    )


def verify(directory: Path) -> Verified:
    """Read every file to its end. What is damaged is set aside, as if an agent had met it."""
    files = size = 0
    damaged = []
    for file in survey(directory).stored:
        payload, reason = read_stored(directory, file.label)
        if payload is not None:
            files += 1
            size += len(payload)
        elif reason:
            damaged.append((file.label, reason))
    found = survey(directory)
    needs = Needs(directory, found)
    incomplete = [f.label for f in found.stored if f.is_place and needs.is_broken(f)]
    return Verified(files, size, damaged, incomplete)


def prune(directory: Path, budget: int) -> Pruned:
    """Delete what is of no use, then what was used longest ago, down to `budget` bytes."""
    with _alone(directory) as is_there:
        return _delete(directory, budget) if is_there else Pruned(0, 0, 0, 0)


def clear(directory: Path) -> Pruned:
    """Delete everything but what running agents hold."""
    with _alone(directory) as is_there:
        if not is_there:
            return Pruned(0, 0, 0, 0)
        pruned = _delete(directory, 0)
        (directory / BAD / LOG).unlink(missing_ok=True)
        return pruned


def _delete(directory: Path, budget: int) -> Pruned:
    found = survey(directory)
    temps = [file for file in found.temps if delete(directory, [file])]
    swept = Evicted(len(temps), sum(file.size for file in temps))
    found = survey(directory)
    evicted = evict(directory, found, Needs(directory, found), budget, len(found.stored))
    left = survey(directory)
    return Pruned(
        files=swept.files + evicted.files,
        size=swept.size + evicted.size,
        files_left=len(left.stored),
        size_left=left.size,
    )


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """No other process writes meanwhile. False where there is no store."""
    if not directory.is_dir():
        yield False
        return
    try:
        with locked(directory / LOCK, WAIT):
            yield True
    except BusyError:
        raise StoreError(f"another ds4-agent is writing into {directory}; try again") from None
    except OSError as error:
        raise StoreError(f"cannot change {directory}: {error.strerror or error}") from error


def _free(directory: Path) -> int:
    for path in (directory, *directory.parents):
        if os.path.isdir(path):
            return disk_space(path).free
    return 0
