"""What a pass over several tokens leaves behind, some of them guesses: after a wrong one, the state
must be the one before it. In: what each layer took in. Out: the logits of every token, and the
state after as many as turn out right. It computes no row again: a state in the middle is a cut of
what the pass made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from ds4_agent.engine.model.arrays import Array, compact
from ds4_agent.engine.model.attention import Advanced, with_rows
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.state import LayerState, State

__all__ = ["Trail", "trail_of_layers", "trail_of_states"]


@dataclass(frozen=True)
class Trail:
    """A pass. What `after` gives is lazy where MLX computes: evaluate it on the same thread."""

    logits: Array  # [tokens, vocab] fp32
    streams: Array  # [tokens, n, hidden], behind the last layer: what a draft layer goes on from
    after: Callable[[int], State]  # the state after the first so many tokens, at least one
    leaves: tuple[Array, ...]  # all of MLX that `after` is cut from

    def evaluate(self) -> None:
        """Compute what MLX has put off."""
        if isinstance(self.logits, mx.array):
            mx.eval(self.logits, self.streams, *self.leaves)


def trail_of_states(logits: Array, streams: Array, states: Sequence[State]) -> Trail:
    """Where every state was made."""
    return Trail(logits, streams, lambda count: states[count - 1], ())


def trail_of_layers(
    logits: Array,
    streams: Array,
    before: State,
    layers: Sequence[Advanced],
    config: ModelConfig,
) -> Trail:
    """Where each layer took in all tokens at once, behind `before`."""
    tokens = logits.shape[0]

    def after(count: int) -> State:
        if not 1 <= count <= tokens:
            raise ValueError(f"no state after {count} of {tokens} tokens")
        cut = (
            advanced.state
            if count == tokens
            else _cut(old, advanced, before.position, layer, count, config)
            for layer, (old, advanced) in enumerate(zip(before.layers, layers, strict=True))
        )
        return State(before.position + count, tuple(cut))

    leaves = [leaf for advanced in layers for leaf in _leaves(advanced)]
    return Trail(logits, streams, after, tuple(leaves))


def _cut(
    before: LayerState,
    advanced: Advanced,
    position: int,
    layer: int,
    count: int,
    config: ModelConfig,
) -> LayerState:
    """The layer after the first `count` of the pass's tokens."""
    tokens = advanced.projected.shape[0]
    end = advanced.local.shape[0] - tokens + count
    first = max(end - (config.sliding_window - 1), 0)
    state = replace(before, window=compact(advanced.local[first:end]))
    pooled = advanced.pooled
    if pooled is None:
        return state
    ratio = config.ratio(layer)
    groups = (position % ratio + count) // ratio
    pending = pooled.inputs[groups * ratio : pooled.inputs.shape[0] - tokens + count]
    rows = pooled.rows[:groups] if groups and pooled.rows is not None else None
    keys = pooled.index_rows[:groups] if groups and pooled.index_rows is not None else None
    return with_rows(state, rows, keys, pending)


def _leaves(advanced: Advanced) -> list[Array]:
    own = [*advanced.state.leaves(), advanced.local]
    if advanced.pooled is not None:
        own.append(advanced.pooled.inputs)
        own += [x for x in (advanced.pooled.rows, advanced.pooled.index_rows) if x is not None]
    return own
