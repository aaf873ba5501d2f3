"""Rotary positions: interleaved pairs in the last `qk_rope_head_dim` channels of a head. In: plain
integer positions. Out: one complex factor for each pair of channels, 1 where nothing is rotated, so
that applying it (or its conjugate, the inverse) is a single multiplication.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.arrays import Array, library
from ds4_agent.engine.model.config import ModelConfig, RopeScaling

__all__ = ["Rotary", "rotate"]


@dataclass(frozen=True)
class Rotary:
    """Radians a token, [rope_dim / 2] fp32: plain for sliding layers, YaRN-scaled for the rest."""

    sliding: NDArray[np.float32]
    compressed: NDArray[np.float32]

    @staticmethod
    def of(config: ModelConfig) -> "Rotary":
        dim = config.qk_rope_head_dim
        return Rotary(
            _frequencies(dim, config.rope_theta, None),
            _frequencies(dim, config.compress_rope_theta, config.rope_scaling),
        )

    def factors(
        self, positions: NDArray[np.int64], head_dims: Sequence[int], *, compressed: bool
    ) -> list[NDArray[np.complex64]]:
        """Factors [len(positions), head_dim / 2] complex64 for heads of each of the sizes."""
        # The angle is rounded to fp32 as DeepSeek's code and transformers round it, so that both
        # agree with us at any position; cos and sin of it are taken in float64, because the fast
        # device functions lose digits at large angles.
        table = self.compressed if compressed else self.sliding
        angles = positions.astype(np.float32)[:, None] * table
        turns = np.exp(1j * angles.astype(np.float64)).astype(np.complex64)
        factors = []
        for head_dim in head_dims:
            whole = np.ones((len(positions), head_dim // 2), dtype=np.complex64)
            whole[:, head_dim // 2 - len(table) :] = turns
            factors.append(whole)
        return factors


def rotate(x: Array, factors: Array) -> Array:
    """`x` [..., head_dim] fp32 turned by `factors` [..., head_dim / 2], which broadcast."""
    xp = library(x)
    return (x.view(xp.complex64) * factors).view(xp.float32)


def _frequencies(dim: int, theta: float, scaling: RopeScaling | None) -> NDArray[np.float32]:
    """Radians a token for each pair, rounded to fp32 where the reference rounds."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = (theta ** exponents.astype(np.float64)).astype(np.float32)
    plain: NDArray[np.float32] = (1.0 / powers).astype(np.float32)
    if scaling is None:
        return plain
    # YaRN: pairs that turn often in the original context keep their speed, slow ones are slowed by
    # `factor`, those between are mixed linearly.
    slowed = (1.0 / (np.float32(scaling.factor) * powers)).astype(np.float32)
    low = max(math.floor(_pair_turning(scaling.beta_fast, dim, theta, scaling)), 0)
    high = min(math.ceil(_pair_turning(scaling.beta_slow, dim, theta, scaling)), dim - 1)
    span = high - low if high > low else 0.001
    ramp = (np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(span)
    keep = (1.0 - np.clip(ramp, 0, 1)).astype(np.float32)
    mixed: NDArray[np.float32] = (slowed * (1 - keep) + plain * keep).astype(np.float32)
    return mixed


def _pair_turning(turns: float, dim: int, theta: float, scaling: RopeScaling) -> float:
    """Which pair makes `turns` full turns within the original context (a fraction)."""
    context = scaling.original_max_position_embeddings
    return dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
