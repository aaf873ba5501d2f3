"""Decoding states of any length without computing them: random rows of the sizes and in the blocks
that so many tokens would have left. In: a config, a position. Out: a `State`, evaluated. What is
decoded behind it means nothing; it takes the time and memory it would take.
"""

import mlx.core as mx
import numpy as np

from ds4_agent.engine.model.config import LayerKind, ModelConfig
from ds4_agent.engine.model.rows import FULL_ROWS, Rows, block_sizes
from ds4_agent.engine.model.state import LayerState, State

__all__ = ["filled_state"]


def filled_state(config: ModelConfig, position: int, dtype: mx.Dtype) -> State:
    """The state after `position` tokens, a multiple of both ratios."""
    layers = tuple(_layer(config, kind, position, dtype) for kind in config.layer_kinds)
    state = State(position, layers)
    mx.eval(state.leaves())
    return state


def _layer(c: ModelConfig, kind: LayerKind, position: int, dtype: mx.Dtype) -> LayerState:
    window = _normed((min(position, c.sliding_window - 1), c.head_dim), dtype)
    if kind == "sliding":
        return LayerState(window, None, None, None)
    if kind == "hca":
        rows = _rows(position // c.hca_ratio, c.head_dim, dtype)
        return LayerState(window, mx.zeros((0, 2 * c.head_dim)), rows, None)
    pending = mx.random.normal((c.csa_ratio, 4 * (c.head_dim + c.index_head_dim)))
    count = position // c.csa_ratio
    rows, keys = _rows(count, c.head_dim, dtype), _rows(count, c.index_head_dim, dtype)
    return LayerState(window, pending, rows, keys)


def _rows(count: int, width: int, dtype: mx.Dtype) -> Rows:
    *blocks, last = (_normed((size, width), dtype) for size in block_sizes(count))
    full = count // FULL_ROWS
    return Rows(tuple(blocks[:full]), tuple(blocks[full:]), last)


def _normed(shape: tuple[int, int], dtype: mx.Dtype) -> mx.array:
    """As the norms before them leave rows."""
    if not shape[0]:
        return mx.zeros(shape, dtype=dtype)
    noise = np.random.default_rng(shape[0]).standard_normal(shape, dtype=np.float32)
    rows = mx.fast.rms_norm(mx.array(noise), None, 1e-6).astype(dtype)
    mx.eval(rows)  # one block after the other: a million tokens are some hundred megabytes a layer
    return rows
