"""exp and sigmoid, at the speed the device allows. In and out: fp32 arrays. The libraries' own
functions everywhere except for large MLX arrays on an x86 CPU.
"""

import platform

import mlx.core as mx

from ds4_agent.engine.model.arrays import Array, library
from ds4_agent.engine.model.tiles import on_cpu

__all__ = ["exp", "is_slow", "sigmoid"]

# The MLX wheel for x86 computes exp one number at a time with fused multiply-adds in software:
# 25 ns each, most of the time of a prefill. Multiplications and additions of whole arrays take
# 0.3 ns each, so the same polynomial written as array operations is nine times faster. Below this
# size dispatching them costs more than they save.
LARGE = 4096
_IS_X86 = platform.machine() in ("x86_64", "AMD64")

_LOG2_E = 1.4426950408889634
# Adding 1.5 * 2^23 leaves no bits for a fraction: the sum holds round(x) in its lowest bits.
_TO_INTEGER = 12582912.0
# 2^(f/2) for f in [-0.5, 0.5], relative error 8.3e-8; squared below.
_POLYNOMIAL = (
    0.0006002310547046363,
    0.006951005198061466,
    0.06005699187517166,
    0.34657278656959534,
    1.0,
)
_SMALLEST = -87.0  # exp of less is not a normal fp32 number


def exp(x: Array) -> Array:
    """e^x of fp32 `x` between -87 and 88, relative error below 1e-6 for |x| < 20."""
    return _array_exp(x) if is_slow(x) else library(x).exp(x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) of any fp32 `x`."""
    if isinstance(x, mx.array) and not is_slow(x):
        return mx.sigmoid(x)
    return 1.0 / (1.0 + exp(library(x).clip(-x, _SMALLEST, -_SMALLEST)))


def is_slow(x: Array) -> bool:
    """True for a large MLX array on an x86 CPU, where functions cost more than arithmetic."""
    return _IS_X86 and isinstance(x, mx.array) and x.size >= LARGE and on_cpu()


def _array_exp(x: mx.array) -> mx.array:
    """2^n 2^f, n the integer nearest to x log2(e): a polynomial for f, exponent bits for n."""
    power = x * _LOG2_E
    shifted = power + _TO_INTEGER
    fraction = power - (shifted - _TO_INTEGER)
    root = fraction * _POLYNOMIAL[0] + _POLYNOMIAL[1]
    for coefficient in _POLYNOMIAL[2:]:
        root = root * fraction + coefficient
    bits = (root * root).view(mx.int32) + (shifted.view(mx.int32) << 23)
    return bits.view(mx.float32)
