"""A `State` taken apart and put together. In: an evaluated State, or raw rows from files. Out: raw
rows as numpy copies, or a State whose every leaf, and the partition of whose rows, is the saved
one's bit for bit. Everything here that touches a State runs on the engine thread.

What only grows is the *histories*: compressed rows and index rows, in whole blocks of 128 tokens.
The *frontier* is the rest: windows, pending compressor inputs, and the rows behind the last whole
block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.kvstore.packing import Bits, Form
from ds4_agent.engine.model import rows as blocking
from ds4_agent.engine.model.arrays import Array
from ds4_agent.engine.model.config import BLOCK_TOKENS, ModelConfig
from ds4_agent.engine.model.rows import Rows
from ds4_agent.engine.model.state import LayerState, State

__all__ = ["History", "Layout", "Rebuilt", "as_bytes", "copy_frontier", "copy_rows"]


@dataclass(frozen=True)
class History:
    """One array of rows that only grows."""

    layer: int
    is_index: bool
    ratio: int  # tokens a row
    form: Form

    def of(self, layer: LayerState) -> Rows:
        rows = layer.index_rows if self.is_index else layer.rows
        assert rows is not None
        return rows


class Layout:
    """The arrays of a model's states, in the order in which files hold them."""

    def __init__(self, config: ModelConfig, dtype: str, *, in_numpy: bool) -> None:
        """`dtype`: of rows, e.g. "bfloat16". `in_numpy`: states are put together in numpy, else in
        MLX; the files are alike."""
        self.config = config
        self.dtype = dtype
        self.in_numpy = in_numpy
        fp8, fp4 = ("fp8", "fp4") if config.kv_simulation else ("", "")
        self._row = Form(config.head_dim, dtype, fp8, config.qk_rope_head_dim)  # type: ignore[arg-type]
        index = Form(config.index_head_dim, dtype, fp4)  # type: ignore[arg-type]
        self.histories: tuple[History, ...] = tuple(
            History(layer, is_index, config.ratio(layer), index if is_index else self._row)
            for layer, kind in enumerate(config.layer_kinds)
            for is_index in ((False, True) if kind == "csa" else (False,))
            if kind != "sliding"
        )

    def frontier(self, position: int) -> list[tuple[int, Form]]:
        """(rows, form) of each window and each pending array at a position."""
        c = self.config
        parts: list[tuple[int, Form]] = []
        for layer, kind in enumerate(c.layer_kinds):
            parts.append((min(position, c.sliding_window - 1), self._row))
            ratio = c.ratio(layer)
            if kind == "hca":
                parts.append((position % ratio, Form(2 * c.head_dim, "float32")))
            elif kind == "csa":
                width = 4 * (c.head_dim + c.index_head_dim)
                parts.append((ratio + position % ratio, Form(width, "float32")))
        return parts

    def tails(self, position: int) -> list[tuple[int, Form]]:
        """(rows, form) of what each history has behind the last whole block."""
        return [(position % BLOCK_TOKENS // h.ratio, h.form) for h in self.histories]


def copy_rows(state: State, layout: Layout, first: int, stop: int) -> list[Bits]:
    """The rows of blocks first..stop-1, an array for each history. Runs on the engine thread."""
    return [
        _slice(
            history.of(state.layers[history.layer]),
            first * BLOCK_TOKENS // history.ratio,
            stop * BLOCK_TOKENS // history.ratio,
            history.form,
        )
        for history in layout.histories
    ]


def copy_frontier(state: State, layout: Layout) -> list[Bits]:
    """The arrays of `Layout.frontier`, then of `Layout.tails`. Runs on the engine thread."""
    parts: list[Bits] = []
    for layer in state.layers:
        parts.append(_bits(layer.window).copy())
        if layer.pending is not None:
            parts.append(_bits(layer.pending).copy())
    whole = state.position // BLOCK_TOKENS * BLOCK_TOKENS
    for history in layout.histories:
        rows = history.of(state.layers[history.layer])
        parts.append(_slice(rows, whole // history.ratio, rows.length, history.form))
    return parts


class Rebuilt:
    """A State under construction: its arrays are allocated, and are filled from files. Lives on the
    engine thread. Filled in place, so that a long state is never in memory twice."""

    def __init__(self, layout: Layout, position: int) -> None:
        self.layout = layout
        self._position = position
        target = _HostTarget if layout.in_numpy else _Target
        self._frontier = [target(n, form) for n, form in layout.frontier(position)]
        self._rows = [_RowsTarget(position // h.ratio, h.form, target) for h in layout.histories]

    def frontier(self) -> list[tuple[Form, Bits]]:
        """The arrays of `Layout.frontier`, to be written."""
        return [(target.form, target.bits) for target in self._frontier]

    def rows(self, history: int, first: int, stop: int) -> Iterator[Bits]:
        """Views that together are rows first..stop-1 of a history."""
        return self._rows[history].views(first, stop)

    def memory(self, history: int, first: int, stop: int) -> Iterator[memoryview]:
        """The same as bytes."""
        return self._rows[history].memory(first, stop)

    def finish(self) -> State:
        """The State; nothing may be written afterwards."""
        c, parts = self.layout.config, iter(self._frontier)
        histories = iter(self._rows)
        layers = []
        for kind in c.layer_kinds:
            window = next(parts).finish()
            pending = next(parts).finish() if kind != "sliding" else None
            rows = next(histories).finish() if kind != "sliding" else None
            index = next(histories).finish() if kind == "csa" else None
            layers.append(LayerState(window, pending, rows, index))
        state = State(self._position, tuple(layers))
        if not self.layout.in_numpy:
            mx.eval(state.leaves())
        return state


class _Target:
    """An MLX array that is written once, through `bits`, before anybody else sees it."""

    def __init__(self, rows: int, form: Form) -> None:
        self.form = form
        self._dtype = getattr(mx, form.dtype)
        raw = mx.float32 if form.dtype == "float32" else mx.uint16
        self._array: mx.array = mx.zeros((rows, form.width), dtype=raw)
        mx.eval(self._array)
        self.bits: Bits = np.array(self._array, copy=False).view(form.bits)

    def finish(self) -> Array:
        array = self._array
        return array if array.dtype == self._dtype else array.view(self._dtype)


class _HostTarget:
    """The same in numpy, which has no bf16; nor have models that compute in it."""

    def __init__(self, rows: int, form: Form) -> None:
        self.form = form
        self.bits: Bits = np.empty((rows, form.width), form.bits)

    def finish(self) -> Array:
        return self.bits.view(np.float32)


class _RowsTarget:
    """Rows of a known length, parted as `Rows.append` parts them."""

    def __init__(self, length: int, form: Form, target: type[_Target] | type[_HostTarget]) -> None:
        self._full = length // blocking.FULL_ROWS
        self._targets = [target(size, form) for size in blocking.block_sizes(length)]
        self._bytes = [as_bytes(target.bits) for target in self._targets]
        self._row_bytes = form.width * form.bits.itemsize

    def views(self, first: int, stop: int) -> Iterator[Bits]:
        for target, low, high in self._parts(first, stop):
            yield self._targets[target].bits[low:high]

    def memory(self, first: int, stop: int) -> Iterator[memoryview]:
        size = self._row_bytes
        for target, low, high in self._parts(first, stop):
            yield self._bytes[target][low * size : high * size]

    def _parts(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(array, its first row, the row behind its last) that together are rows first..stop-1."""
        start = 0
        for number, target in enumerate(self._targets):
            end = start + len(target.bits)
            if first < end and start < stop:
                yield number, max(first - start, 0), min(stop, end) - start
            start = end

    def finish(self) -> Rows:
        *blocks, open_ = (target.finish() for target in self._targets)
        return Rows(tuple(blocks[: self._full]), tuple(blocks[self._full :]), open_)


def as_bytes(array: NDArray[Any]) -> memoryview:
    """The memory of an array, of which every byte may be written."""
    return array.reshape(-1).view(np.uint8).data


def _slice(rows: Rows, start: int, stop: int, form: Form) -> Bits:
    """A copy of rows start..stop-1. Cut in numpy: on MLX each piece would be an operation."""
    pieces, first = [], 0
    for block in rows.blocks():
        low, high = max(start - first, 0), min(stop - first, block.shape[0])
        if low < high:
            pieces.append(_bits(block)[low:high])
        first += block.shape[0]
    if not pieces:
        return np.empty((0, form.width), form.bits)
    return np.concatenate(pieces)


def _bits(array: Array) -> NDArray[Any]:
    """An evaluated array's bits, without a copy. numpy has no bf16."""
    if isinstance(array, mx.array) and array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
        mx.eval(array)
    host = np.array(array, copy=False)
    return host.view(np.uint32 if host.itemsize == 4 else np.uint16)
