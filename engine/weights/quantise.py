"""Quantise a matrix into one of MLX's modes. In: fp32 values, a format and perhaps how much each
input counts. Out: the arrays of that format, as a checkpoint stores them. It reads and writes no
file.

MLX's own `quantize` spreads the codes of an affine group from its smallest value to its largest.
With two bits that is far from the best: most values lie near the middle, and an input that is
hardly ever large may be rounded as roughly as one likes. Here several narrower spreads are tried,
each refitted by weighted least squares, and the one with the least weighted error is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import mlx.core as mx

from ds4_agent.engine.model.tiles import on_cpu, spans
from ds4_agent.engine.weights.packed_formats import PackedFormat

__all__ = ["Quantised", "quantised"]

# Elements of a block of rows: its dozen fp32 arrays stay near a core's cache, or keep a GPU busy.
CPU_BLOCK, GPU_BLOCK = 1 << 18, 1 << 24
# At either end a spread leaves out up to this share of the range, in STEPS steps: with 2 bits, and
# less by NARROWER for every further bit. Found on normal and on heavy-tailed values.
SHRINK, NARROWER, STEPS = 0.3, 0.6, 4
LAST_ROUNDS = 2  # of refitting the best

# Error, scales, biases (each [rows, groups, 1]) and codes ([rows, groups, group_size]), all fp32.
_Fit: TypeAlias = tuple[mx.array, mx.array, mx.array, mx.array]


@dataclass(frozen=True)
class Quantised:
    """A matrix [..., m, k] in a mode of MLX."""

    codes: mx.array  # [..., m, k * bits / 32] uint32
    scales: mx.array  # [..., m, k / group_size]; affine: fp32, otherwise uint8
    biases: mx.array | None  # like scales; affine only


def quantised(
    matrix: mx.array, target: PackedFormat, importance: mx.array | None = None
) -> Quantised:
    """`matrix` [..., m, k] fp32, evaluated block by block. `importance` [k], [..., 1, k] or
    [..., m, k], never negative: how much an error of each input counts (the mean square of its
    activations); None: all alike.

    Affine scales and biases are values that bf16 holds exactly, as they are best stored: a GPU
    computes in bf16, and the codes are chosen for them. In no group the weighted square error is
    larger than that of MLX's `quantize` stored in bf16. The other modes have no biases and scales
    of a few bits: they are rounded to the nearest, whatever the importance.
    """
    if target.mode != "affine":
        codes, scales, *_ = mx.quantize(
            matrix, group_size=target.group_size, bits=target.bits, mode=target.mode
        )
        return Quantised(codes, scales, None)
    *lead, m, k = matrix.shape
    matrices = matrix.reshape(-1, m, k)
    counts = _counts(importance, matrix.shape)
    step = max((CPU_BLOCK if on_cpu() else GPU_BLOCK) // k, 1)
    blocks = []
    for i in range(matrices.shape[0]):
        for a, b in spans(m, step):
            weights = counts[i : i + 1, a:b] if counts.shape[1] > 1 else counts[i : i + 1]
            parts = _searched(matrices[i, a:b], weights[0], target)
            mx.eval(parts)
            blocks.append(parts)
    codes, scales, biases = (
        mx.concatenate(list(parts)).reshape(*lead, m, -1) for parts in zip(*blocks, strict=True)
    )
    return Quantised(codes, scales, biases)


def _counts(importance: mx.array | None, shape: tuple[int, ...]) -> mx.array:
    """[matrices, 1 or m, k] fp32."""
    *lead, m, k = shape
    if importance is None:
        importance = mx.ones((k,))
    rows = m if importance.ndim > 1 and importance.shape[-2] == m else 1
    spread = mx.broadcast_to(importance.astype(mx.float32), (*lead, rows, k))
    return spread.reshape(-1, rows, k)


def _searched(
    matrix: mx.array, counts: mx.array, target: PackedFormat
) -> tuple[mx.array, mx.array, mx.array]:
    """(packed codes, scales, biases) of rows [m, k]; `counts` [1 or m, k]."""
    m, k = matrix.shape
    groups = (-1, k // target.group_size, target.group_size)
    _, scales, biases = mx.quantize(matrix, group_size=target.group_size, bits=target.bits)
    fit = _search(target.bits, on_cpu())(
        matrix.reshape(groups), counts.reshape(groups), scales[..., None], biases[..., None]
    )
    _, scales, biases, codes = fit
    return _words(codes.reshape(m, k), target.bits), scales[..., 0], biases[..., 0]


@lru_cache(maxsize=16)
def _search(bits: int, is_cpu: bool) -> Callable[[mx.array, mx.array, mx.array, mx.array], _Fit]:
    """The search for codes of `bits`. A GPU fuses its many small operations; on a CPU MLX would
    need a compiler for that."""

    def search(w: mx.array, h: mx.array, scales: mx.array, biases: mx.array) -> _Fit:
        """Of groups w [rows, groups, n] whose values count h [1 or rows, groups, n]; the nearest
        codes of `scales` and `biases` [rows, groups, 1] are the fit to beat."""
        low, high = w.min(axis=-1, keepdims=True), w.max(axis=-1, keepdims=True)
        reach, top = high - low, (1 << bits) - 1
        best = _fit(w, h, scales, biases, top)
        widest = SHRINK * NARROWER ** (bits - 2)
        cuts = [widest * i / (STEPS - 1) for i in range(STEPS)]
        for below in cuts:
            for above in cuts:
                spread = reach * ((1 - below - above) / top)
                first = _fit(w, h, spread, low + reach * below, top)
                best = _better(_better(best, first), _refitted(w, h, first, top))
        for _ in range(LAST_ROUNDS):
            best = _better(best, _refitted(w, h, best, top))
        return best

    return search if is_cpu else mx.compile(search)


def _fit(w: mx.array, h: mx.array, scales: mx.array, biases: mx.array, top: int) -> _Fit:
    """The nearest codes 0..top for scales and biases, these rounded to bf16 first."""
    scales, biases = _bf16(scales), _bf16(biases)
    codes = mx.clip(mx.round((w - biases) / mx.where(scales == 0, 1.0, scales)), 0, top)
    wrong = w - (codes * scales + biases)
    return (h * (wrong * wrong)).sum(axis=-1, keepdims=True), scales, biases, codes


def _refitted(w: mx.array, h: mx.array, fit: _Fit, top: int) -> _Fit:
    """Weighted least squares of scales and biases for the codes of `fit`, and then its codes."""
    codes = fit[3]
    hq = h * codes
    n, q, qq, v, qv = (
        x.sum(axis=-1, keepdims=True) for x in (h + 0 * w, hq, hq * codes, h * w, hq * w)
    )
    spread = n * qq - q * q
    is_sound = spread > 1e-6 * n * qq  # else all that counts has one code
    scales = _bf16(mx.where(is_sound, (n * qv - q * v) / mx.where(is_sound, spread, 1.0), 0.0))
    return _fit(w, h, scales, (v - scales * q) / n, top)


def _better(a: _Fit, b: _Fit) -> _Fit:
    """Group by group the one with the smaller error; `a` where they are equal or b's is no number,
    as where nothing counts."""
    wins = b[0] < a[0]
    error, scales, biases, codes = (mx.where(wins, y, x) for x, y in zip(a, b, strict=True))
    return error, scales, biases, codes


def _bf16(x: mx.array) -> mx.array:
    return x.astype(mx.bfloat16).astype(mx.float32)


def _words(codes: mx.array, bits: int) -> mx.array:
    """Codes [m, k] fp32 as MLX packs them, [m, k * bits / 32] uint32: a stream of bits, the first
    code lowest. Eight codes are `bits` bytes."""
    eights = codes.astype(mx.uint64).reshape(codes.shape[0], -1, 8)
    joined = (eights << mx.array([bits * i for i in range(8)], dtype=mx.uint64)).sum(axis=-1)
    each = joined[..., None] >> mx.array([8 * i for i in range(bits)], dtype=mx.uint64)
    return (each & 255).astype(mx.uint8).reshape(codes.shape[0], -1).view(mx.uint32)
