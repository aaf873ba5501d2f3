"""Quantise a matrix into one of MLX's modes. In: fp32 values and a format. Out: the arrays of that
format, as a checkpoint stores them. It reads and writes no file.
"""

from dataclasses import dataclass

import mlx.core as mx

from ds4_agent.engine.weights.packed_formats import PackedFormat

__all__ = ["Quantised", "quantised"]


@dataclass(frozen=True)
class Quantised:
    """A matrix [..., m, k] in a mode of MLX."""

    codes: mx.array  # [..., m, k * bits / 32] uint32
    scales: mx.array  # [..., m, k / group_size]; affine: fp32, otherwise uint8
    biases: mx.array | None  # like scales; affine only


def quantised(
    matrix: mx.array, target: PackedFormat, importance: mx.array | None = None
) -> Quantised:
    """`matrix` [..., m, k] fp32, each group rounded to the nearest codes. `importance` [..., 1, k]
    or [k]: how much an error of each input counts (the mean square of its activations); None: all
    alike."""
    codes, scales, *biases = mx.quantize(
        matrix, group_size=target.group_size, bits=target.bits, mode=target.mode
    )
    return Quantised(codes, scales, biases[0] if biases else None)
