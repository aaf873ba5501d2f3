"""Manifold-constrained hyper-connections: a sublayer reads one mix of the n residual streams and
writes back through another, with weights computed from the streams themselves. In: streams
`[tokens, n, hidden]`, or `[states, 1, n, hidden]` (see `arrays`). Everything in fp32; it never
mixes tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.arrays import (
    Array,
    cast,
    fp32,
    library,
    like,
    rms_norm,
    softmax,
)
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.parameters import HyperWeights
from ds4_agent.engine.model.sigmoid import sigmoid

__all__ = ["Mixing", "collapse_streams", "hyper_weights", "read_streams", "write_streams"]


@dataclass(frozen=True)
class Mixing:
    """How a sublayer's output returns to the streams."""

    post: Array  # [tokens, n, 1] fp32
    comb: Array  # [tokens, n (to), n (from)] fp32, nearly doubly stochastic

    def from_token(self, first: int) -> "Mixing":
        """That of the tokens from `first` on."""
        return Mixing(self.post[first:], self.comb[first:])


def read_streams(
    streams: Array, weights: HyperWeights, norm: Array, config: ModelConfig
) -> tuple[Array, Mixing]:
    """(the sublayer's input [tokens, hidden] fp32, normed with `norm`; the way back)."""
    *lead, n, _ = streams.shape
    streams = fp32(streams)
    logits = _stream_logits(streams, weights.fn, weights.base, config)
    # pre = sigmoid + eps and post = 2 sigmoid, as one multiplication and one addition.
    gates = sigmoid(logits[..., : 2 * n]) * weights.gate_scale + weights.gate_shift
    comb = softmax(logits[..., 2 * n :].reshape(*lead, n, n)).reshape(*lead, -1)
    comb = _sinkhorn(comb, weights, config).reshape(*lead, n, n)
    x = (gates[..., None, :n] @ streams).reshape(*lead, -1)
    # Stream i contributes comb[i, j] to stream j: the published matrix is used transposed.
    mixing = Mixing(gates[..., n:, None], comb.swapaxes(-1, -2))
    return rms_norm(x, norm, config.rms_norm_eps), mixing


def write_streams(streams: Array, y: Array, mixing: Mixing) -> Array:
    """The streams after a sublayer that gave `y` [tokens, hidden]; dtype of `streams`."""
    return cast(mixing.comb @ fp32(streams) + mixing.post * fp32(y)[..., None, :], streams)


def collapse_streams(streams: Array, fn: Array, base: Array, config: ModelConfig) -> Array:
    """The one vector [tokens, hidden] fp32 that goes to the output norm."""
    streams = fp32(streams)
    pre = sigmoid(_stream_logits(streams, fn, base, config)) + config.hc_eps
    return (pre[..., None, :] @ streams).reshape(*streams.shape[:-2], -1)


def hyper_weights(
    fn: mx.array, base: mx.array, scale: mx.array, config: ModelConfig
) -> HyperWeights:
    """The engine's layout of a published fn [2n + n², n * hidden], base and scale [3]; all fp32."""
    n = config.hc_mult
    scales = mx.concatenate([mx.broadcast_to(scale[i], (k,)) for i, k in enumerate((n, n, n * n))])
    ones, eye = np.ones((n, n), np.float32), np.eye(n, dtype=np.float32)
    return HyperWeights(
        fn=fn * scales[:, None],
        base=base,
        gate_scale=mx.array([1.0] * n + [2.0] * n),
        gate_shift=mx.array([config.hc_eps] * n + [0.0] * n),
        row_sums=_sums(np.kron(eye, ones), config.hc_eps),
        column_sums=_sums(np.kron(ones, eye), config.hc_eps),
    )


def _stream_logits(streams: Array, fn: Array, base: Array, config: ModelConfig) -> Array:
    """fn applied to the RMS-normalised streams, plus base: [tokens, rows of fn]."""
    flat = streams.reshape(*streams.shape[:-2], -1)
    return rms_norm(flat, None, config.rms_norm_eps) @ fn.T + base


def _sinkhorn(comb: Array, weights: HyperWeights, config: ModelConfig) -> Array:
    """Alternately divide columns and rows of [..., n²] by (their sum + eps)."""
    one = like(comb, np.ones((*comb.shape[:-1], 1), dtype=np.float32))
    x = library(comb).concatenate([comb + config.hc_eps, one], axis=-1)
    rows, columns = weights.row_sums, weights.column_sums
    matrices = [columns, *[rows, columns] * (config.hc_sinkhorn_iters - 1)]
    if isinstance(x, np.ndarray):
        _divide_in_place(x, matrices)
    else:
        for matrix in matrices:
            x = x / (x @ matrix)
    return x[..., :-1]


def _divide_in_place(x: NDArray[np.float32], matrices: Sequence[NDArray[np.float32]]) -> None:
    """x = x / (x @ matrix) for each of the alternating `matrices`."""
    sums, before = np.empty_like(x), b""
    is_step = x.ndim == 3 or len(x) == 1
    times = np.dot if x.ndim == 2 else np.matmul  # `dot` is the faster, and knows no third axis
    for number, matrix in enumerate(matrices):
        times(x, matrix, out=sums)
        np.divide(x, sums, out=x)
        # Once a whole iteration changes no bit, no later one will. One token is there after about
        # half of the iterations; of many tokens one is always late, so they are not looked at.
        if is_step and number % 2 == 0:
            now = x.tobytes()
            if now == before:
                break
            before = now


def _sums(members: NDArray[np.float32], eps: float) -> mx.array:
    """[n² + 1, n² + 1], for rows of n² entries and a 1: each entry's divisor in the Sinkhorn
    iteration, the sum over its `members` plus eps; and the 1 again. So a half-iteration is one
    product and one division, with no reduction, broadcast or addition."""
    size = len(members) + 1
    matrix = np.zeros((size, size), np.float32)
    matrix[:-1, :-1] = members
    matrix[-1, :-1] = eps
    matrix[-1, -1] = 1.0
    return mx.array(matrix)
