"""A sequence of rows that only grows, as an immutable value with shared blocks. In: new rows
`[n, width]`. Out: another `Rows` that shares every finished block with the old one; the old one
keeps its value. It never concatenates the whole history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

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

    full: tuple[mx.array, ...]  # each [FULL_ROWS, width], shared by all states that reach it
    growing: mx.array  # [a multiple of OPEN_ROWS below FULL_ROWS, width]
    open: mx.array  # [fewer than OPEN_ROWS, width]

    @staticmethod
    def empty(width: int, dtype: mx.Dtype) -> "Rows":
        nothing = mx.zeros((0, width), dtype=dtype)
        return Rows((), nothing, nothing)

    @property
    def length(self) -> int:
        return len(self.full) * FULL_ROWS + self.growing.shape[0] + self.open.shape[0]

    def append(self, new: mx.array) -> "Rows":
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

    def blocks(self) -> tuple[mx.array, ...]:
        """The arrays that hold the rows, oldest first, none empty."""
        return tuple(b for b in (*self.full, self.growing, self.open) if b.shape[0])

    def slice(self, start: int, stop: int) -> mx.array:
        """Rows start..stop-1 as one array [stop - start, width]: what the store on disk cuts."""
        pieces, first = [], 0
        for block in self.blocks():
            low, high = max(start - first, 0), min(stop - first, block.shape[0])
            if low < high:
                pieces.append(block[low:high])
            first += block.shape[0]
        return _joined(pieces) if pieces else self.open[:0]


def compact(x: mx.array) -> mx.array:
    """The same values in a buffer of their own, so that a slice does not keep its source alive."""
    return mx.contiguous(x)


def _joined(pieces: Sequence[mx.array]) -> mx.array:
    pieces = [p for p in pieces if p.shape[0]] or [pieces[0]]
    return pieces[0] if len(pieces) == 1 else mx.concatenate(pieces, axis=0)
