"""What one token makes a model read of its weights. In: parameters as the engine holds them. Out:
bytes. Nothing is computed.
"""

from typing import Any

import mlx.core as mx
import numpy as np

from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.packed import Packed
from ds4_agent.engine.model.parameters import Parameters

__all__ = ["held_and_read"]


def held_and_read(parameters: Parameters, config: ModelConfig) -> tuple[int, float]:
    """(bytes of all weights, those of them that one token reads)."""
    return _below(parameters, "", config)


def _below(tree: Any, name: str, config: ModelConfig) -> tuple[int, float]:
    if isinstance(tree, mx.array | np.ndarray):
        size = int(tree.nbytes)
        if name in ("gate_up", "down"):
            return size, size * config.num_experts_per_tok / config.n_routed_experts
        return size, size / tree.shape[0] if name in ("embed", "table") else size
    parts = [(value, name) for value in tree] if isinstance(tree, tuple) else []
    if hasattr(tree, "__dataclass_fields__"):
        # Codes, scales and biases count as the weight they belong to.
        inherits = isinstance(tree, Packed)
        parts = [(value, name if inherits else key) for key, value in vars(tree).items()]
    sums = [_below(value, own, config) for value, own in parts]
    return sum(size for size, _ in sums), sum(read for _, read in sums)
