"""The kernels there are, each with the pure operation it stands in for and random calls to compare
both on. In: a configuration. Out: small calls whose sizes that a kernel depends on (heads, widths,
rows taken) are those of the model. It runs nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from ds4_agent.engine.model import hyper as pure_hyper
from ds4_agent.engine.model import indexer as pure_indexer
from ds4_agent.engine.model import rows as pure_rows
from ds4_agent.engine.model import softmax as pure_softmax
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.kernels import attention, hyper, indexer
from ds4_agent.engine.model.kernels.launch import Launch
from ds4_agent.engine.model.softmax import Piece

__all__ = ["Call", "Kernel", "kernels"]

Call = tuple[Any, ...]
# Of the largest number in a result. A wrong kernel is off by a large part of it; a right one by
# 1e-6, but the product before `read_streams` is MLX's own, which from the M5 on rounds fp32 inputs
# to eleven bits (TF32).
TOLERANCE = 2e-3
BF16_STEP = 2.0**-7  # results in bf16 may come out on either side of a rounding


@dataclass(frozen=True)
class Kernel:
    """A kernel and its twin, which have one signature."""

    name: str  # a field of `Operations`
    run: Callable[..., Any]
    twin: Callable[..., Any]
    calls: Callable[[ModelConfig, mx.Dtype], Iterator[Call]]
    suits: Callable[[ModelConfig], bool] = lambda config: True
    tolerance: float = TOLERANCE
    arrays: Callable[[Any], Sequence[mx.array]] = lambda result: [result]
    """A result as arrays that can be compared number by number."""


def kernels(launch: Launch) -> tuple[Kernel, ...]:
    """All kernels, started by `launch`."""
    return (
        Kernel(
            "read_streams", partial(hyper.read_streams, launch),
            pure_hyper.read_streams, _read_calls, hyper.suits,
            arrays=lambda result: [result[0], result[1].post, result[1].comb],
        ),
        Kernel(
            "write_streams", partial(hyper.write_streams, launch),
            pure_hyper.write_streams, _write_calls, tolerance=BF16_STEP,
        ),
        Kernel(
            "index_scores", partial(indexer.index_scores, launch),
            pure_indexer.index_scores, _score_calls,
        ),
        Kernel(
            "top_rows", partial(indexer.top_rows, launch),
            pure_indexer.top_rows, _top_calls, tolerance=0.0, arrays=_in_order,
        ),
        Kernel(
            "taken_rows", partial(indexer.taken_rows, launch),
            pure_rows.taken_rows, _taken_calls, tolerance=0.0,
        ),
        Kernel(
            "attend_pieces", partial(attention.attend_pieces, launch),
            pure_softmax.attend_pieces, _attend_calls, attention.suits,
        ),
    )  # fmt: skip


def _in_order(chosen: tuple[mx.array, mx.array]) -> list[mx.array]:
    """Chosen rows ascending, those not valid first."""
    numbers, valid = chosen
    return [mx.sort(mx.where(valid > 0, numbers + 1, 0), axis=1)]


def _drawn() -> Callable[..., mx.array]:
    """`drawn(*shape, dtype=…)`: normal numbers, the same in every process."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int, dtype: mx.Dtype = mx.float32) -> mx.array:
        return mx.array(rng.standard_normal(shape, dtype=np.float32)).astype(dtype)

    return drawn


def _read_calls(c: ModelConfig, dtype: mx.Dtype) -> Iterator[Call]:
    drawn, n = _drawn(), c.hc_mult
    rows = 2 * n + n * n
    for tokens in (1, 3):
        fn = drawn(rows, n * c.hidden_size) * (n * c.hidden_size) ** -0.5
        weights = pure_hyper.hyper_weights(fn, drawn(rows), mx.array([1.0, 0.7, 2.0]), c)
        streams = drawn(tokens, n, c.hidden_size, dtype=dtype)
        yield streams, weights, 1.0 + 0.1 * drawn(c.hidden_size), c


def _write_calls(c: ModelConfig, dtype: mx.Dtype) -> Iterator[Call]:
    drawn, n = _drawn(), c.hc_mult
    for tokens, own in ((1, dtype), (3, mx.float32)):
        mixing = pure_hyper.Mixing(drawn(tokens, n, 1), mx.softmax(drawn(tokens, n, n)))
        streams = drawn(tokens, n, c.hidden_size, dtype=dtype)
        yield streams, drawn(tokens, c.hidden_size, dtype=own), mixing


def _score_calls(c: ModelConfig, dtype: mx.Dtype) -> Iterator[Call]:
    drawn = _drawn()
    for queries in (1, 3):
        q = drawn(queries, c.index_n_heads, c.index_head_dim)
        blocks = [drawn(count, c.index_head_dim, dtype=dtype) for count in (64, 128, 33)]
        yield q, drawn(queries, c.index_n_heads), blocks


def _top_calls(c: ModelConfig, dtype: mx.Dtype) -> Iterator[Call]:
    """All scores apart; many alike; fewer visible than are taken."""
    drawn, top = _drawn(), c.index_topk
    count = 2 * top + 2 * indexer.TOP_THREADS + 5  # more than twice what its threads see at once
    scores = drawn(4, count)
    visible = np.array([count, count - 3, top + 1, top // 2])
    yield scores, visible, top
    yield mx.maximum(mx.round(scores), 0.0) - 0.0, visible, top
    yield scores[:1], visible[:1], top


def _taken_calls(c: ModelConfig, dtype: mx.Dtype) -> Iterator[Call]:
    drawn = _drawn()
    for sizes in ((40,), (16, 8, 5), (2,) * (indexer.TAKEN_BLOCKS + 3)):
        blocks = [drawn(size, c.head_dim, dtype=dtype) for size in sizes]
        numbers = np.random.default_rng(1).integers(0, sum(sizes), (2, 9))
        yield blocks, mx.array(numbers.astype(np.int32))


def _attend_calls(c: ModelConfig, dtype: mx.Dtype) -> Iterator[Call]:
    """A window alone; window, all rows and gathered rows with masks; scores too large for exp."""
    drawn, rng = _drawn(), np.random.default_rng(2)
    heads, width = c.num_attention_heads, c.head_dim
    sinks = drawn(heads)
    window = Piece(drawn(45, width, dtype=dtype), None)
    q = drawn(1, heads, width) * width**-0.5
    yield q, [window], sinks, 30.0
    queries = 3
    seen = (rng.random((queries, 45)) < 0.6).astype(np.float32)
    own = drawn(queries, 29, width, dtype=dtype)
    pieces = [
        Piece(window.keys, seen),
        Piece(drawn(70, width, dtype=dtype), None),
        Piece(own, mx.array(seen[:, :29])),
    ]
    q = drawn(queries, heads, width) * width**-0.5
    yield q, pieces, sinks, 30.0
    yield 40.0 * q, pieces, 20.0 * sinks, 400.0
