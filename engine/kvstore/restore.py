"""A State from files. In: the name of a place and the tokens it is to stand behind. Out: the State
and the logits that were saved there, or None: whatever is missing, damaged or of other tokens is a
miss. Runs on the engine thread. Files are read into the very arrays of the State, verified on the
way; only what is packed is in memory beside it, one file of rows at a time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.packing import Bits, Bytes, Form, packed_bytes, unpack
from ds4_agent.engine.kvstore.payloads import extent_header, place_header
from ds4_agent.engine.kvstore.snapshot import Layout, Rebuilt, as_bytes
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
    rebuilt = Rebuilt(layout, len(ids))
    place = _Place(rebuilt, layout, ids)
    if not disk.fill(places, name, place.plan) or not place.is_filled():
        return None
    if not all(disk.has(rows, file) for file in place.extents):
        return None
    found, first, last = [], 0, len(ids) // BLOCK_TOKENS
    for file in place.extents:
        extent = _Extent(rebuilt, layout, ids[: last * BLOCK_TOKENS], first)
        if not disk.fill(rows, file, extent.plan) or not extent.is_filled():
            return None
        found.append((file, extent.blocks))
        first += extent.blocks
    return Restored(rebuilt.finish(), place.logits, tuple(found)) if first == last else None


class _Place:
    """The frontier, the logits and the last ids of a state, on their way from a file."""

    def __init__(self, rebuilt: Rebuilt, layout: Layout, ids: NDArray[np.uint32]) -> None:
        self.extents: tuple[str, ...] = ()
        self.logits: NDArray[np.float32] = np.empty(0, "<f4")
        self._rebuilt, self._layout = rebuilt, layout
        self._ids = ids
        self._read: NDArray[np.uint32] = np.empty(0, "<u4")
        self._arrays = _Arrays()

    def plan(self, line: bytes) -> list[memoryview] | None:
        """`fileformat.Plan`."""
        header, position = place_header(line), len(self._ids)
        tails = self._layout.tails(position)
        if (
            header is None
            or header.position != position
            or len(header.packed) != len(self._layout.frontier(position)) + len(tails)
        ):
            return None
        self.extents = header.extents
        self._ids = self._ids[header.ids_from :]
        self._read = np.empty(len(self._ids), "<u4")
        self.logits = np.empty(header.vocabulary, "<f4")
        self._arrays.add(self._read)
        self._arrays.add(self.logits)
        codes = iter(header.packed)
        for form, out in self._rebuilt.frontier():
            self._arrays.add(out, form, next(codes))
        whole = position // BLOCK_TOKENS * BLOCK_TOKENS
        for number, (history, (count, _)) in enumerate(
            zip(self._layout.histories, tails, strict=True)
        ):
            start = whole // history.ratio
            self._arrays.add_rows(self._rebuilt, number, start, count, next(codes))
        return self._arrays.pieces

    def is_filled(self) -> bool:
        """Once all of it has been read: whether it is of these ids."""
        self._arrays.unpack()
        return self._read.tobytes() == self._ids.tobytes()


class _Extent:
    """The rows of some blocks, on their way from a file."""

    def __init__(
        self, rebuilt: Rebuilt, layout: Layout, ids: NDArray[np.uint32], first: int
    ) -> None:
        """`ids` of all whole blocks, of which those before block `first` are there already."""
        self.blocks = 0
        self._rebuilt, self._layout = rebuilt, layout
        self._ids, self._first = ids[first * BLOCK_TOKENS :], first
        self._read: NDArray[np.uint32] = np.empty(0, "<u4")
        self._arrays = _Arrays()

    def plan(self, line: bytes) -> list[memoryview] | None:
        """`fileformat.Plan`."""
        header, histories = extent_header(line), self._layout.histories
        if header is None or header.tokens > len(self._ids) or len(header.packed) != len(histories):
            return None
        self.blocks = header.tokens // BLOCK_TOKENS
        self._read = np.empty(header.tokens, "<u4")
        self._arrays.add(self._read)
        for number, (history, code) in enumerate(zip(histories, header.packed, strict=True)):
            start = self._first * BLOCK_TOKENS // history.ratio
            count = header.tokens // history.ratio
            self._arrays.add_rows(self._rebuilt, number, start, count, code)
        return self._arrays.pieces

    def is_filled(self) -> bool:
        """Once all of it has been read: whether it is of the ids that come next."""
        self._arrays.unpack()
        return self._read.tobytes() == self._ids[: len(self._read)].tobytes()


@dataclass(frozen=True)
class _Packed:
    """Rows that are unpacked once they are verified."""

    data: Bytes
    rows: int
    form: Form
    out: tuple[Bits, ...]


class _Arrays:
    """Memory to read into, in the order of a file."""

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []
        self._packed: list[_Packed] = []

    def add(self, array: NDArray[Any], form: Form | None = None, code: str = "") -> None:
        """An array; `code` "1": its rows, of this form, are packed in the file."""
        if form is not None and code == "1":
            self._add_packed(form, len(array), (array,))
        elif array.size:
            self.pieces.append(as_bytes(array))

    def add_rows(self, rebuilt: Rebuilt, history: int, start: int, count: int, code: str) -> None:
        """Rows from `start` on of a history."""
        if code == "1":
            form = rebuilt.layout.histories[history].form
            self._add_packed(form, count, tuple(rebuilt.rows(history, start, start + count)))
        else:
            self.pieces += rebuilt.memory(history, start, start + count)

    def _add_packed(self, form: Form, rows: int, out: tuple[Bits, ...]) -> None:
        data = np.empty(packed_bytes(rows, form, is_packed=True), np.uint8)
        self.add(data)
        self._packed.append(_Packed(data, rows, form, out))

    def unpack(self) -> None:
        """Write what was read packed to where it belongs."""
        for part in self._packed:
            start = 0
            for out in part.out:
                unpack(part.data, part.rows, part.form, is_packed=True, start=start, out=out)
                start += len(out)
