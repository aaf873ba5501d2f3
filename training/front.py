"""What the layers keep of a long text before a batch, so that training meets long prompts cheaply.

In: a model, its weights and ids. Out: a `Front`: for each layer the window, the compressed rows and
where the next group begins. It is computed without gradient, in pieces, and stands for up to 24,576
tokens through some dozen steps. The weights move on meanwhile; the rows that are attended to get a
little old, which does no harm at the rates of a run that goes on from trained weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from training.config import NanoConfig
from training.model import Added, Kept, Model, Shape, Weights, rotation_from

# A front is computed in pieces of this shape: one row behind its prefix is just a run of tokens.
PIECE = Shape(prefix=128, rows=1, length=896)
PIECE_TOKENS = PIECE.tokens

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Front:
    """`tokens` (a multiple of 1,024) tokens, `capacity` at most; `layers` as their batch needs them.

    `facts`: as that of a prefix, whose rows may need one; None where a prompt follows the front.
    """

    tokens: int
    capacity: int
    layers: tuple[Kept, ...]
    facts: int | None = None


def compute(
    model: Model, weights: Weights, ids: Ids, capacity: int, batch: Shape, facts: int | None = None
) -> Front:
    """The front of `ids` (a multiple of 1,024, at most `capacity`) for batches of shape `batch`."""
    if len(ids) % PIECE_TOKENS or not 0 < len(ids) <= capacity:
        raise ValueError(f"a front has a multiple of {PIECE_TOKENS} tokens, {capacity} at most")
    config = model.config
    layers: list[Kept] | None = None
    with torch.no_grad():
        for start in range(0, len(ids), PIECE_TOKENS):
            piece = torch.from_numpy(ids[start : start + PIECE_TOKENS])
            _, _, added = model.layers(weights, piece, PIECE, layers)
            end = start + PIECE_TOKENS
            shape = PIECE if end < len(ids) else batch
            layers = [
                extended(layers[i] if layers else None, new, i, end, capacity, shape, config)
                for i, new in enumerate(added)
            ]
    assert layers is not None
    return Front(len(ids), capacity, tuple(layers), facts)


def extended(
    kept: Kept | None,
    added: Added,
    layer: int,
    tokens: int,
    capacity: int,
    shape: Shape,
    config: NanoConfig,
) -> Kept:
    """What a layer keeps of `tokens` tokens, for a batch of `shape` that comes next."""
    rate = config.rate(layer)
    theta = config.compress_rope_theta if rate else config.rope_theta
    turn = rotation_from(tokens, shape, config.rope_dim, theta)
    window = added.keys[-config.window :]
    if added.pooled is None:
        return Kept(turn.cos, turn.sin, window)
    pooled = added.pooled.new_zeros(capacity // rate, added.pooled.shape[-1])
    count = (tokens - PIECE_TOKENS) // rate
    if kept is not None and kept.pooled is not None:
        pooled[:count] = kept.pooled[:count]
    pooled[count : tokens // rate] = added.pooled
    number = torch.tensor(tokens // rate)
    return Kept(turn.cos, turn.sin, window, pooled, number, added.before_kv, added.before_gate)
