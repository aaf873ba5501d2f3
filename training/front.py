"""What the layers keep of a long text before a batch, so that training meets long prompts cheaply.

In: a model, its weights and ids. Out: a `Front`: for each layer the window, the compressed rows and
where the next group begins. It is computed without gradient, in pieces, and stands for up to 24,576
tokens through some dozen steps. The weights move on meanwhile; the rows that are attended to get a
little old, which does no harm at the rates of a run that goes on from trained weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from training.config import NanoConfig
from training.model import Added, Kept, Model, Shape, Weights, rotation_from
from training.shards import Before, Corpus, front_text

# A front is computed in pieces of this shape: one row behind its prefix is just a run of tokens.
PIECE = Shape(prefix=128, rows=1, length=896)
PIECE_TOKENS = PIECE.tokens

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Front:
    """What stands before a batch, and what each layer keeps of it for a batch of one shape."""

    before: Before
    layers: tuple[Kept, ...]


@dataclass(frozen=True)
class Size:
    """Fronts of `least` to `most` tokens before batches of `batch`, in a `share` of the steps.
    What is compiled depends on `most` and `batch` only."""

    least: int
    most: int
    share: float
    batch: Shape


@dataclass
class Fronts:
    """One front of each size, each used for `uses` steps before another takes its place."""

    model: Model  # not compiled: the pieces of a front would need graphs of their own
    sizes: tuple[Size, ...]
    uses: int
    alive: dict[Size, tuple[int, Front]] = field(default_factory=dict)

    def drawn(
        self, weights: Weights, corpus: Corpus, random: np.random.Generator
    ) -> tuple[Front, Shape] | None:
        """The front of the next step and the shape of its batch; None: a step without one."""
        pick = random.random()
        for size in self.sizes:
            if pick < size.share:
                return self.front(size, weights, corpus, random), size.batch
            pick -= size.share
        return None

    def front(
        self, size: Size, weights: Weights, corpus: Corpus, random: np.random.Generator
    ) -> Front:
        left, front = self.alive.get(size, (0, None))
        if front is None or left == 0:
            pieces = random.integers(size.least // PIECE_TOKENS, size.most // PIECE_TOKENS + 1)
            before = front_text(corpus, int(pieces) * PIECE_TOKENS, random)
            layers = compute(self.model, weights, before.ids, size.most, size.batch)
            left, front = self.uses, Front(before, layers)
        self.alive[size] = (left - 1, front)
        return front


def compute(
    model: Model, weights: Weights, ids: Ids, capacity: int, batch: Shape
) -> tuple[Kept, ...]:
    """What each layer keeps of `ids` (a multiple of 1,024, at most `capacity`) for such batches."""
    if len(ids) % PIECE_TOKENS or not 0 < len(ids) <= capacity:
        raise ValueError(f"a front has a multiple of {PIECE_TOKENS} tokens, {capacity} at most")
    config = model.config
    device = weights["lm_head.weight"].device
    layers: list[Kept] | None = None
    with torch.no_grad():
        for start in range(0, len(ids), PIECE_TOKENS):
            piece = torch.from_numpy(ids[start : start + PIECE_TOKENS]).to(device)
            _, _, added = model.layers(weights, piece, PIECE, layers)
            end = start + PIECE_TOKENS
            shape = PIECE if end < len(ids) else batch
            layers = [
                extended(layers[i] if layers else None, new, i, end, capacity, shape, config)
                for i, new in enumerate(added)
            ]
    assert layers is not None
    return tuple(layers)


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
    turn = rotation_from(tokens, shape, config.rope_dim, theta, added.keys.device)
    window = added.keys[-config.window :]
    if added.pooled is None:
        return Kept(turn.cos, turn.sin, window)
    pooled = added.pooled.new_zeros(capacity // rate, added.pooled.shape[-1])
    count = (tokens - PIECE_TOKENS) // rate
    if kept is not None and kept.pooled is not None:
        pooled[:count] = kept.pooled[:count]
    pooled[count : tokens // rate] = added.pooled
    number = torch.tensor(tokens // rate, device=pooled.device)
    return Kept(turn.cos, turn.sin, window, pooled, number, added.before_kv, added.before_gate)
