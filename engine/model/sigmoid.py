"""The logistic function in either array library."""

import mlx.core as mx
import numpy as np

from ds4_agent.engine.model.arrays import Array

__all__ = ["sigmoid"]


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) of any fp32 `x`."""
    if isinstance(x, mx.array):
        return mx.sigmoid(x)
    return 1.0 / (1.0 + np.exp(np.minimum(-x, 87.0)))  # e^88 is beyond fp32, and the result 0
