"""The draft layer of the preview checkpoint (`mtp.0`): one more sliding layer that goes on from the
model's own streams and the id that came, and guesses the one after. In: ids, and the streams of the
tokens before them. Out: logits, its own streams to guess further from, its own state. Embedding and
head are the model's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ds4_agent.engine.model.arrays import Array, cast, fp32, rms_norm
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.packed import Weight, product
from ds4_agent.engine.model.state import State

__all__ = ["DraftLayer"]


@dataclass(frozen=True)
class DraftLayer:
    """Weights in the library that `model` computes in."""

    model: Model  # of one layer, with norm and stream head of its own
    e_proj: Weight  # [hidden, hidden]
    h_proj: Weight  # [hidden, hidden]
    e_norm: Array  # [hidden] fp32
    h_norm: Array  # [hidden] fp32

    def step(self, ids: Sequence[int], streams: Array, state: State) -> tuple[Array, Array, State]:
        """`ids`, and `streams` [ids, n, hidden] of the tokens before each: (logits [vocab] of what
        comes behind the last id, its streams [1, n, hidden], the state). Lazy where MLX computes.
        """
        eps = self.model.config.rms_norm_eps
        came = rms_norm(fp32(self.model.embedded(ids)), self.e_norm, eps)
        known = rms_norm(fp32(streams), self.h_norm, eps)
        both = product(cast(came, self.e_proj), self.e_proj)[:, None] + product(
            cast(known, self.h_proj), self.h_proj
        )
        return self.model.go_on(cast(both, streams), ids, state)
