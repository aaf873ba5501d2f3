"""The rounding of KV rows (FP8) and index queries and keys (FP4) that the published weights were
trained with. In: fp32 rows. Out: fp32 rows whose values the low-precision format can hold.
Used only where `ModelConfig.kv_simulation` asks for it.
"""

import mlx.core as mx
import numpy as np

from ds4_agent.engine.model.arrays import Array, library

__all__ = ["hadamard", "round_index", "round_kv"]

KV_BLOCK = 64
INDEX_BLOCK = 32
_E4M3_MAX, _E4M3_MIN_EXPONENT, _E4M3_MANTISSA = 448.0, -6, 3
_E2M1_MAX, _E2M1_MIN_EXPONENT, _E2M1_MANTISSA = 6.0, 0, 1


def round_kv(x: Array, rope_dim: int) -> Array:
    """Rows [..., head_dim] with all but the last `rope_dim` channels rounded to e4m3, one
    power-of-two scale for each 64 channels."""
    plain, roped = x[..., :-rope_dim], x[..., -rope_dim:]
    blocks = plain.reshape(*plain.shape[:-1], -1, KV_BLOCK)
    largest = _largest(blocks, 1e-4)
    scale = _power_of_two_above(largest / _E4M3_MAX)
    rounded = _round_float(blocks / scale, _E4M3_MANTISSA, _E4M3_MIN_EXPONENT) * scale
    return library(x).concatenate([rounded.reshape(plain.shape), roped], axis=-1)


def round_index(x: Array, rotation: Array) -> Array:
    """Rows [..., index_head_dim], Hadamard-rotated, then rounded to e2m1 with one power-of-two
    scale for each 32 channels."""
    turned = x @ rotation
    blocks = turned.reshape(*x.shape[:-1], -1, INDEX_BLOCK)
    largest = _largest(blocks, 7.05e-38)
    scale = _power_of_two_above(largest / _E2M1_MAX)
    rounded = _round_float(blocks / scale, _E2M1_MANTISSA, _E2M1_MIN_EXPONENT) * scale
    return rounded.reshape(x.shape)


def hadamard(size: int) -> mx.array:
    """The orthonormal Hadamard matrix [size, size] fp32; `size` is a power of two."""
    matrix = np.ones((1, 1), dtype=np.float64)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return mx.array((matrix / np.sqrt(size)).astype(np.float32))


def _largest(blocks: Array, least: float) -> Array:
    xp = library(blocks)
    return xp.maximum(xp.max(xp.abs(blocks), axis=-1, keepdims=True), least)


def _power_of_two_above(x: Array) -> Array:
    """2^ceil(log2 x) of positive normal fp32, exactly: by the bits, not by a logarithm."""
    xp = library(x)
    bits = x.view(xp.int32)
    exponent = (bits >> 23) + ((bits & 0x7FFFFF) != 0).astype(xp.int32)
    return (exponent << 23).view(xp.float32)


def _round_float(x: Array, mantissa: int, min_exponent: int) -> Array:
    """`x` fp32 to the nearest value with so many mantissa bits, ties to even; subnormals below."""
    xp = library(x)
    exponent = xp.maximum((x.view(xp.int32) >> 23) & 0xFF, min_exponent + 127)
    step = ((exponent - mantissa) << 23).view(xp.float32)
    return xp.round(x / step) * step
