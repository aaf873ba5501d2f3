"""A sequence of rows that only grows, as an immutable value with shared blocks. In: new rows
`[n, width]`. Out: another `Rows` that shares every finished block with the old one; the old one
keeps its value. It never concatenates the whole history.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ds4_agent.engine.model.arrays import Array, compact, library

__all__ = ["FULL_ROWS", "OPEN_ROWS", "Rows", "block_sizes", "taken_rows"]

# Rows arrive one at a time in decoding. They are copied within an open block of fewer than
# OPEN_ROWS rows. Finished, it joins growing blocks of 1, 2, 4 … times that size, each there once at
# the most, as the digits of a binary number: a row is copied five times until it is in a full
# block, and then never again. So the work for a row does not grow with the history, a million
# tokens of CSA are 32 full blocks and a few others, so a query visits few arrays, and of all that
# many forks of one state share, a fork copies little when it finishes a block of its own. Both
# sizes are multiples of the rows of 128 tokens (32 CSA, 1 HCA).
OPEN_ROWS = 256
FULL_ROWS = 8192


@dataclass(frozen=True)
class Rows:
    """Rows `[length, width]`, oldest first, all of one width and dtype."""

    full: tuple[Array, ...]  # each [FULL_ROWS, width], shared by all states that reach it
    growing: tuple[Array, ...]  # each [OPEN_ROWS times a power of two, width], descending
    open: Array  # [fewer than OPEN_ROWS, width]

    @staticmethod
    def empty(width: int, dtype: mx.Dtype) -> "Rows":
        return Rows((), (), mx.zeros((0, width), dtype=dtype))

    @property
    def length(self) -> int:
        rest: int = sum(block.shape[0] for block in (*self.growing, self.open))
        return len(self.full) * FULL_ROWS + rest

    def append(self, new: Array) -> "Rows":
        """These rows and `new` [n, width] behind them."""
        rest = _joined((self.open, new))
        if rest.shape[0] < OPEN_ROWS:
            return Rows(self.full, self.growing, rest)
        old, sizes = (*self.full, *self.growing), block_sizes(self.length + new.shape[0])
        kept = 0
        while kept < min(len(old), len(sizes) - 1) and old[kept].shape[0] == sizes[kept]:
            kept += 1
        rest, start = _joined((*old[kept:], rest)), 0
        cut = []
        for size in sizes[kept:]:
            cut.append(compact(rest[start : start + size]))
            start += size
        blocks = (*old[:kept], *cut[:-1])
        count = sizes.count(FULL_ROWS)
        return Rows(blocks[:count], blocks[count:], cut[-1])

    def blocks(self) -> tuple[Array, ...]:
        """The arrays that hold the rows, oldest first, none empty."""
        return tuple(b for b in (*self.full, *self.growing, self.open) if b.shape[0])

    def mapped(self, change: Callable[[Array], Array]) -> "Rows":
        """The same with every array changed."""
        full, growing = tuple(map(change, self.full)), tuple(map(change, self.growing))
        return Rows(full, growing, change(self.open))

    def slice(self, start: int, stop: int) -> Array:
        """Rows start..stop-1 as one array [stop - start, width]: what the store on disk cuts."""
        pieces, first = [], 0
        for block in self.blocks():
            low, high = max(start - first, 0), min(stop - first, block.shape[0])
            if low < high:
                pieces.append(block[low:high])
            first += block.shape[0]
        return _joined(pieces) if pieces else self.open[:0]


def block_sizes(length: int) -> list[int]:
    """How so many rows are parted, oldest first: full blocks, growing ones, the open one last."""
    full, rest = divmod(length, FULL_ROWS)
    finished, open_rows = divmod(rest, OPEN_ROWS)
    digits = range(finished.bit_length() - 1, -1, -1)
    growing = [OPEN_ROWS << digit for digit in digits if finished >> digit & 1]
    return [FULL_ROWS] * full + growing + [open_rows]


def taken_rows(blocks: Sequence[mx.array], numbers: mx.array) -> mx.array:
    """Rows by number, [queries, top_k, width] for `numbers` [queries, top_k] into the rows of all
    blocks. In MLX: a GPU must not wait for the numbers, so it takes as many rows from every block.
    """
    if len(blocks) == 1:
        return blocks[0][numbers]
    first, total = 0, None
    for block in blocks:
        own = numbers - first
        inside = mx.logical_and(own >= 0, own < block.shape[0]).astype(block.dtype)
        part = block[mx.clip(own, 0, block.shape[0] - 1)] * inside[..., None]
        total = part if total is None else total + part
        first += block.shape[0]
    assert total is not None, "there are no rows to take from"
    return total


def _joined(pieces: Sequence[Array]) -> Array:
    pieces = [p for p in pieces if p.shape[0]] or [pieces[0]]
    return pieces[0] if len(pieces) == 1 else library(pieces[0]).concatenate(pieces, axis=0)
