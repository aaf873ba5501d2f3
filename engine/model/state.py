"""The decoding state of a model at a position: an immutable value with structural sharing. Keeping
an old `State` is a checkpoint, using it again a rewind, using it twice a fork; none of them copies.
It holds arrays and nothing else: no tokens, no weights, no thread.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx

from ds4_agent.engine.model.arrays import Array
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.rows import Rows

__all__ = ["LayerState", "State", "evaluate", "initial_state"]


@dataclass(frozen=True)
class LayerState:
    """One layer's part. `window` and `pending` are the frontier; the rows are history. All of it is
    in MLX, or, where a CPU has computed it, in numpy."""

    window: Array
    """The last min(position, sliding_window - 1) key/value rows, roped: [n, head_dim] stream dtype.
    """
    pending: Array | None
    """Compressor inputs (values, then gates) not yet pooled, fp32. HCA: the open group
    [position % ratio, 2 * head_dim]. CSA: the last closed group, which overlaps into the next row,
    and the open one: [ratio + position % ratio, 4 * (head_dim + index_head_dim)]."""
    rows: Rows | None
    """Compressed key/value rows, [position // ratio, head_dim] stream dtype; None: sliding layer.
    """
    index_rows: Rows | None
    """CSA only: index keys of the same rows, [position // ratio, index_head_dim] stream dtype."""

    def leaves(self) -> Iterator[Array]:
        yield self.window
        if self.pending is not None:
            yield self.pending
        for rows in (self.rows, self.index_rows):
            if rows is not None:
                yield from (*rows.full, *rows.growing, rows.open)

    def mapped(self, change: Callable[[Array], Array]) -> "LayerState":
        """The same with every array changed. Each token asks for it, so it is written out."""
        return LayerState(
            change(self.window),
            None if self.pending is None else change(self.pending),
            None if self.rows is None else self.rows.mapped(change),
            None if self.index_rows is None else self.index_rows.mapped(change),
        )


@dataclass(frozen=True)
class State:
    """What the model remembers after `position` tokens."""

    position: int
    layers: tuple[LayerState, ...]

    def leaves(self) -> list[Array]:
        """Every array of the state."""
        return [leaf for layer in self.layers for leaf in layer.leaves()]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, those shared with other states included."""
        return sum(leaf.nbytes for leaf in self.leaves())


def evaluate(logits: Array, *states: State) -> None:
    """Compute what MLX has put off of a step; nothing where numpy computed it. To be called after
    each: a leaf left lazy keeps the graphs of all steps before it alive."""
    if isinstance(logits, mx.array):
        mx.eval(logits, *(leaf for state in states for leaf in state.leaves()))


def initial_state(config: ModelConfig, dtype: mx.Dtype) -> State:
    """The state before the first token, evaluated."""
    layers = tuple(
        _initial_layer(config, layer, dtype) for layer in range(config.num_hidden_layers)
    )
    state = State(0, layers)
    mx.eval(state.leaves())
    return state


def _initial_layer(config: ModelConfig, layer: int, dtype: mx.Dtype) -> LayerState:
    window = mx.zeros((0, config.head_dim), dtype=dtype)
    kind = config.layer_kinds[layer]
    if kind == "sliding":
        return LayerState(window, None, None, None)
    rows = Rows.empty(config.head_dim, dtype)
    if kind == "hca":
        return LayerState(window, mx.zeros((0, 2 * config.head_dim)), rows, None)
    # Before the first CSA group stands one whose gates are -inf: it weighs nothing in the softmax.
    width = 2 * (config.head_dim + config.index_head_dim)
    values, gates = mx.zeros((config.csa_ratio, width)), mx.full((config.csa_ratio, width), -mx.inf)
    pending = mx.concatenate([values, gates], axis=1)
    return LayerState(window, pending, rows, Rows.empty(config.index_head_dim, dtype))
