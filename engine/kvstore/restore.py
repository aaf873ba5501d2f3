"""A State from files. In: the name of a place and the tokens it is to stand behind. Out: the State
and the logits that were saved there, or None: whatever is missing, damaged or of other tokens is a
miss. Runs on the engine thread; one extent of rows is in memory at a time beside the State.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.payloads import Extent, Part, Place, read_extent, read_place
from ds4_agent.engine.kvstore.snapshot import Layout, Rebuilt
from ds4_agent.engine.model.config import BLOCK_TOKENS
from ds4_agent.engine.model.state import State

__all__ = ["Restored", "restore"]


@dataclass(frozen=True)
class Restored:
    """What was saved, and the files that hold its rows."""

    state: State
    logits: NDArray[np.float32]  # [vocabulary] after the last token
    extents: tuple[tuple[str, int], ...]  # (file, its blocks)


def restore(
    disk: Disk, places: str, rows: str, name: str, ids: NDArray[np.uint32], layout: Layout
) -> Restored | None:
    """The state behind `ids`, from the place `name` in the folder `places`."""
    payload = disk.get(places, name)
    place = None if payload is None else read_place(payload, layout)
    if place is None or not _is_of(place, ids):
        return None
    if not all(disk.has(rows, file) for file in place.extents):
        return None
    rebuilt, logits, files = Rebuilt(layout, place.position), np.array(place.logits), place.extents
    _fill_frontier(rebuilt, place, layout)
    del payload, place
    found, first, last = [], 0, len(ids) // BLOCK_TOKENS
    for file in files:
        payload = disk.get(rows, file)
        extent = None if payload is None else read_extent(payload, layout)
        if extent is None or not _is_next(extent, ids[first * BLOCK_TOKENS : last * BLOCK_TOKENS]):
            return None
        _fill_blocks(rebuilt, extent, first, layout)
        found.append((file, extent.blocks))
        first += extent.blocks
        del payload, extent  # before the next one is read
    return Restored(rebuilt.finish(), logits, tuple(found)) if first == last else None


def _fill_frontier(rebuilt: Rebuilt, place: Place, layout: Layout) -> None:
    for part, out in zip(place.frontier, rebuilt.frontier(), strict=True):
        part.into(out)
    whole = place.position // BLOCK_TOKENS * BLOCK_TOKENS
    for number, (history, part) in enumerate(zip(layout.histories, place.tails, strict=True)):
        start = whole // history.ratio
        _fill(rebuilt, number, start, start + part.rows, part)


def _fill_blocks(rebuilt: Rebuilt, extent: Extent, first: int, layout: Layout) -> None:
    """Write all of an extent, whose first block is block `first`."""
    for number, (history, part) in enumerate(zip(layout.histories, extent.histories, strict=True)):
        start = first * BLOCK_TOKENS // history.ratio
        _fill(rebuilt, number, start, start + part.rows, part)


def _is_of(place: Place, ids: NDArray[np.uint32]) -> bool:
    return place.position == len(ids) and np.array_equal(place.ids, ids[place.ids_from :])


def _is_next(extent: Extent, ids: NDArray[np.uint32]) -> bool:
    """Whether its rows are those of the first of `ids`."""
    return np.array_equal(extent.ids, ids[: len(extent.ids)])


def _fill(rebuilt: Rebuilt, history: int, first: int, stop: int, part: Part) -> None:
    """Write a part's first rows as rows first..stop-1 of a history."""
    start = 0
    for out in rebuilt.rows(history, first, stop):
        part.into(out, start)
        start += len(out)
