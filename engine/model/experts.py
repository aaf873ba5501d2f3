"""The mixture of experts: a router by score or by a table of token ids, the routed experts and the
shared one. In: the normed stream and the input token ids. Out: their weighted sum. Router, clamp
and activation in fp32; it keeps no state. Instead of [tokens] it takes [states, 1] (see `arrays`).
"""

import itertools

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.arrays import Array, cast, fp32, library, like
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.packed import Weight, expert_of, gathered_product, product
from ds4_agent.engine.model.parameters import ExpertWeights
from ds4_agent.engine.model.sigmoid import sigmoid
from ds4_agent.engine.model.tiles import on_cpu

__all__ = ["apply_experts", "route"]

# From so many tokens on, a GPU sorts them, so that it reads each expert once.
SORTED_TOKENS = 8


def route(
    x: Array, tokens: NDArray[np.int32], weights: ExpertWeights, config: ModelConfig
) -> tuple[Array, Array]:
    """(experts [tokens, k], their shares [tokens, k] fp32) of `x` [tokens, hidden] fp32, normed,
    and the tokens' ids. Where a table decides, the experts are in numpy whatever `x` is in."""
    xp, k = library(x), config.num_experts_per_tok
    scores = xp.sqrt(xp.logaddexp(x @ weights.router.T, xp.zeros(1, dtype=xp.float32)))
    if weights.table is not None:
        chosen = weights.table[tokens]
    else:
        # The bias decides which experts are taken and has no part in their shares.
        ranked = scores if weights.bias is None else scores + weights.bias
        chosen = xp.argpartition(-ranked, k - 1, axis=-1)[..., :k]
    taken = xp.take_along_axis(scores, like(x, chosen), axis=-1)
    total = xp.sum(taken, axis=-1, keepdims=True) + 1e-20
    return chosen, taken * (config.routed_scaling_factor / total)


def apply_experts(
    x: Array, chosen: Array, shares: Array, weights: ExpertWeights, config: ModelConfig
) -> Array:
    """[tokens, hidden] fp32 of `x`, alike: the chosen experts by their shares, and the shared one.

    On a CPU `chosen` is read back, so what leads to it is computed here.
    """
    stream = cast(x, weights.gate_up)
    if isinstance(x, np.ndarray) or on_cpu():
        routed = _one_by_one(stream, np.array(chosen), weights, config)
    elif x.shape[0] < SORTED_TOKENS:
        routed = _gathered(stream, like(x, chosen), weights, config)
    else:
        routed = _sorted(stream, like(x, chosen), weights, config)
    mixed = (shares[..., None, :] @ fp32(routed))[..., 0, :]
    shared = product(_swiglu(product(stream, weights.shared_gate_up), config), weights.shared_down)
    return mixed + fp32(shared)


def _swiglu(gate_up: Array, config: ModelConfig) -> Array:
    """[..., 2 * intermediate] to [..., intermediate], clamped; computed in fp32, dtype kept."""
    xp, wide = library(gate_up), gate_up.shape[-1] // 2
    both = fp32(gate_up)
    gate = xp.minimum(both[..., :wide], config.swiglu_limit)
    up = xp.minimum(xp.maximum(both[..., wide:], -config.swiglu_limit), config.swiglu_limit)
    return cast(gate * sigmoid(gate) * up, gate_up)


def _gathered(
    x: mx.array, chosen: mx.array, weights: ExpertWeights, config: ModelConfig
) -> mx.array:
    """A few tokens: [tokens, k, hidden], each expert's matrix read for each token."""
    x = x[:, None, None]  # [tokens, 1, 1, hidden]
    hidden = _swiglu(gathered_product(x, weights.gate_up, chosen), config)
    return gathered_product(hidden, weights.down, chosen)[:, :, 0]


def _sorted(x: mx.array, chosen: mx.array, weights: ExpertWeights, config: ModelConfig) -> mx.array:
    """Many tokens on a GPU: sorted by expert, [tokens, k, hidden]."""
    tokens, k = chosen.shape
    flat = chosen.reshape(-1)
    order = mx.argsort(flat)
    experts = flat[order]
    rows = x[order // k][:, None]  # [tokens * k, 1, hidden]
    hidden = gathered_product(rows, weights.gate_up, experts, sorted_indices=True)
    out = gathered_product(_swiglu(hidden, config), weights.down, experts, sorted_indices=True)
    return out[:, 0][mx.argsort(order)].reshape(tokens, k, -1)


def _one_by_one(
    x: Array, chosen: NDArray[np.int32], weights: ExpertWeights, config: ModelConfig
) -> Array:
    """On a CPU: sorted by expert, one product for all tokens of each, [tokens, k, hidden], or one
    after the other for states [states, 1, k, hidden].

    MLX's grouped product takes the rows one at a time there, thirteen times slower, and only fp32.
    """
    xp, k = library(x), chosen.shape[-1]
    if chosen.shape[:-1] == (1,):
        hidden = xp.concatenate([_expert(x, weights.gate_up, e) for e in chosen[0].tolist()])
        hidden = _swiglu(hidden, config)[:, None]
        taken = zip(hidden, chosen[0].tolist(), strict=True)
        return xp.concatenate([_expert(row, weights.down, e) for row, e in taken])[None]
    order = np.argsort(chosen, axis=None, kind="stable").astype(np.int32)
    experts = chosen.reshape(-1)[order]
    cuts = [0, *(np.flatnonzero(np.diff(experts)) + 1).tolist(), len(experts)]
    parts = [(int(experts[a]), a, b) for a, b in itertools.pairwise(cuts)]
    rows = x[like(x, order // k)]
    hidden = xp.concatenate([_expert(rows[a:b], weights.gate_up, e) for e, a, b in parts])
    hidden = _swiglu(hidden, config)
    out = xp.concatenate([_expert(hidden[a:b], weights.down, e) for e, a, b in parts])
    return out[like(x, np.argsort(order).astype(np.int32))].reshape(*chosen.shape, -1)


def _expert(rows: Array, stacked: Weight, expert: int) -> Array:
    """rows [n, k] or [n, 1, k] times the expert's matrix [m, k], transposed."""
    return product(rows, expert_of(stacked, expert))
