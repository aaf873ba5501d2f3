"""A sequence of rows that only grows, as an immutable value with shared blocks. In: new rows
`[n, width]`. Out: another `Rows` that shares every finished block with the old one; the old one
keeps its value. It never concatenates the whole history.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ds4_agent.engine.model.arrays import Array, compact, library

__all__ = ["FULL_ROWS", "OPEN_ROWS", "Rows"]

# Rows arrive one at a time in decoding. They are copied within an open block of fewer than
# OPEN_ROWS rows, then once into a growing block of fewer than FULL_ROWS, then never again: the work
# for a row does not grow with the history, and a million tokens of CSA are 32 full blocks, so a
# query visits few arrays. Both sizes are multiples of the rows of 128 tokens (32 CSA, 1 HCA).
OPEN_ROWS = 256
FULL_ROWS = 8192


@dataclass(frozen=True)
class Rows:
    """Rows `[length, width]`, oldest first, all of one width and dtype."""

    full: tuple[Array, ...]  # each [FULL_ROWS, width], shared by all states that reach it
    growing: Array  # [a multiple of OPEN_ROWS below FULL_ROWS, width]
    open: Array  # [fewer than OPEN_ROWS, width]

    @staticmethod
    def empty(width: int, dtype: mx.Dtype) -> "Rows":
        nothing = mx.zeros((0, width), dtype=dtype)
        return Rows((), nothing, nothing)

    @property
    def length(self) -> int:
        return len(self.full) * FULL_ROWS + len(self.growing) + len(self.open)

    def append(self, new: Array) -> "Rows":
        """These rows and `new` [n, width] behind them."""
        full, growing, rest = self.full, self.growing, _joined((self.open, new))
        finished = rest.shape[0] // OPEN_ROWS * OPEN_ROWS
        if finished:
            growing = _joined((growing, rest[:finished]))
            rest = compact(rest[finished:])
        while growing.shape[0] >= FULL_ROWS:
            full = (*full, compact(growing[:FULL_ROWS]))
            growing = compact(growing[FULL_ROWS:])
        return Rows(full, growing, rest)

    def blocks(self) -> tuple[Array, ...]:
        """The arrays that hold the rows, oldest first, none empty."""
        return tuple(b for b in (*self.full, self.growing, self.open) if b.shape[0])

    def mapped(self, change: Callable[[Array], Array]) -> "Rows":
        """The same with every array changed."""
        return Rows(tuple(map(change, self.full)), change(self.growing), change(self.open))

    def slice(self, start: int, stop: int) -> Array:
        """Rows start..stop-1 as one array [stop - start, width]: what the store on disk cuts."""
        pieces, first = [], 0
        for block in self.blocks():
            low, high = max(start - first, 0), min(stop - first, block.shape[0])
            if low < high:
                pieces.append(block[low:high])
            first += block.shape[0]
        return _joined(pieces) if pieces else self.open[:0]


def _joined(pieces: Sequence[Array]) -> Array:
    pieces = [p for p in pieces if p.shape[0]] or [pieces[0]]
    return pieces[0] if len(pieces) == 1 else library(pieces[0]).concatenate(pieces, axis=0)
