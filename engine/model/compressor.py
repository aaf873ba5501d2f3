"""The compressor: every `ratio` tokens become one row, pooled with a softmax of gates for each
channel. In: the attention's input, projected, and what is pending. Out: the rows of the groups that
closed and what is pending now. Everything in fp32; it does not keep rows.
"""

from dataclasses import dataclass

import numpy as np

from ds4_agent.engine.model.arrays import Array, library, like, rms_norm
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.parameters import IndexWeights, PoolWeights
from ds4_agent.engine.model.rope import Rotary, rotate
from ds4_agent.engine.model.simulate import round_index, round_kv

__all__ = ["Pooled", "compress"]


@dataclass(frozen=True)
class Pooled:
    """What closed in a chunk; None where nothing did."""

    rows: Array | None  # [groups, head_dim] fp32, normed and roped
    index_rows: Array | None  # [groups, index_head_dim] fp32; CSA layers only
    pending: Array  # see state.LayerState.pending
    inputs: Array  # what was pending before the chunk, then the chunk's own; `pending` is its end


def compress(
    projected: Array,
    pending: Array,
    position: int,
    ratio: int,
    pool: PoolWeights,
    index: IndexWeights | None,
    config: ModelConfig,
    rotary: Rotary,
) -> Pooled:
    """Pool `projected` [tokens, values and gates] fp32, the input times `pool.proj`; its first
    token stands at `position`.

    `index` is given on CSA layers: their groups overlap, and the indexer's keys are pooled in the
    same pass, their channels beside the rows' (the softmax is one for each channel).
    """
    inputs = library(projected).concatenate([pending, projected], axis=0)
    groups = (position % ratio + projected.shape[0]) // ratio
    if not groups:
        return Pooled(None, None, inputs, inputs)
    used = groups * ratio
    if index is None:
        values, gates = _plain_groups(inputs[:used], groups, config)
    else:
        values, gates = _overlapping_groups(inputs[: used + ratio], groups, config)
    pooled = _pool(values, gates + pool.bias)
    first = position // ratio
    positions = np.arange(first, first + groups, dtype=np.int64) * ratio
    sizes = (config.head_dim, config.index_head_dim)
    turns = rotary.factors(positions, sizes[: 1 if index is None else 2], compressed=True)
    rows = _finish(pooled[:, : config.head_dim], pool.norm, turns[0], config)
    if config.kv_simulation:
        rows = round_kv(rows, config.qk_rope_head_dim)
    if index is None:
        return Pooled(rows, None, inputs[used:], inputs)
    keys = _finish(pooled[:, config.head_dim :], index.norm, turns[1], config)
    if index.rotation is not None:
        keys = round_index(keys, index.rotation)
    return Pooled(rows, keys, inputs[used:], inputs)


def _plain_groups(inputs: Array, groups: int, config: ModelConfig) -> tuple[Array, Array]:
    """Values and gates, each [groups, ratio, head_dim]. Columns: values, gates."""
    inputs = inputs.reshape(groups, -1, inputs.shape[1])
    return inputs[..., : config.head_dim], inputs[..., config.head_dim :]


def _overlapping_groups(inputs: Array, groups: int, config: ModelConfig) -> tuple[Array, Array]:
    """Values and gates, each [groups, 2 * ratio, head_dim + index_head_dim].

    `inputs` begins one group earlier: a row pools the first channel set of the group before its own
    and the second of its own. Columns: values first, values second, gates first, gates second, each
    with the row's channels before the index key's.
    """
    width = config.head_dim + config.index_head_dim
    inputs = inputs.reshape(groups + 1, -1, inputs.shape[1])
    before, own = inputs[:-1], inputs[1:]
    xp = library(inputs)
    values = xp.concatenate([before[..., :width], own[..., width : 2 * width]], axis=1)
    gates = xp.concatenate([before[..., 2 * width : 3 * width], own[..., 3 * width :]], axis=1)
    return values, gates


def _pool(values: Array, gates: Array) -> Array:
    """Softmax over axis 1 for each channel, written out: the operation wants its axis last."""
    xp = library(gates)
    weights = xp.exp(xp.maximum(gates - xp.max(gates, axis=1, keepdims=True), -87.0))
    return xp.sum(values * weights, axis=1) / xp.sum(weights, axis=1)


def _finish(pooled: Array, norm: Array, turns: Array, config: ModelConfig) -> Array:
    return rotate(rms_norm(pooled, norm, config.rms_norm_eps), like(pooled, turns))
