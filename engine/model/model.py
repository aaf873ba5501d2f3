"""DeepSeek V4 Flash: `model(tokens, state) -> logits, state'`. In: token ids and an immutable
state. Out: fp32 logits of the last token and the state after all of them, both lazy where MLX
computes. It holds weights and constants only; everything that changes is in the state.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import TokenRangeError
from ds4_agent.engine.model.arrays import Array, by_columns, library, on_host, rms_norm
from ds4_agent.engine.model.attention import (
    Advanced,
    Turns,
    advance,
    attend,
    attend_each,
    turns_of,
)
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.experts import apply_experts, route
from ds4_agent.engine.model.hyper import collapse_streams, read_streams, write_streams
from ds4_agent.engine.model.operations import PURE, Operations
from ds4_agent.engine.model.packed import has_packed, product, rows_of
from ds4_agent.engine.model.parameters import Parameters
from ds4_agent.engine.model.parts import Before, Behind, part_spans, run_parts
from ds4_agent.engine.model.rope import Rotary
from ds4_agent.engine.model.state import LayerState, State, initial_state
from ds4_agent.engine.model.tiles import on_cpu
from ds4_agent.engine.model.trail import Trail, trail_of_layers, trail_of_states

__all__ = ["Model"]


class Model:
    """A loaded model. Its calls are pure: equal tokens and state give equal results."""

    def __init__(
        self,
        config: ModelConfig,
        parameters: Parameters,
        *,
        in_numpy: bool = True,
        operations: Operations = PURE,
    ) -> None:
        """`parameters` are evaluated. With `in_numpy` a CPU computes in numpy what numpy can;
        `operations` are for MLX."""
        self.config = config
        self._parameters = parameters
        self._operations = operations
        self._rotary = Rotary.of(config)
        self._on_host: Parameters | None = None
        in_numpy = in_numpy and not has_packed(parameters)  # numpy knows no quantised product
        if on_cpu() and parameters.dtype == mx.float32 and in_numpy:
            host = on_host(parameters)
            # The embedding is read by rows.
            self._on_host = replace(by_columns(host), embed=host.embed)

    def changed(self, change: Callable[[Parameters], Parameters]) -> "Model":
        """A model of these weights, changed: observed, or rounded. It shares what it can."""
        return Model(self.config, change(self._parameters))

    @property
    def parameters(self) -> Parameters:
        """Its weights in MLX; a draft layer shares the embedding and the head."""
        return self._parameters

    @property
    def dtype(self) -> mx.Dtype:
        """The stream dtype, also that of stored rows."""
        return self._parameters.dtype

    @property
    def is_in_numpy(self) -> bool:
        """Whether the states it gives are in numpy. It takes both kinds."""
        return self._on_host is not None

    def init_state(self) -> State:
        """The state before the first token."""
        return initial_state(self.config, self.dtype)

    def __call__(self, tokens: Sequence[int], state: State) -> tuple[Array, State]:
        """Logits [vocab] fp32 of the last of `tokens`, and the state after them.

        Evaluate both with `evaluate`. At least one token; prefill cuts long prompts into chunks.
        Raises TokenRangeError.
        """
        logits, after = self._forward(tokens, state, last_only=True)
        return logits[0], after

    def logits_all(self, tokens: Sequence[int], state: State) -> tuple[Array, State]:
        """Like a call, with logits [tokens, vocab] of every token. For tests and evaluation."""
        return self._forward(tokens, state, last_only=False)

    def step_many(
        self, tokens: Sequence[int], states: Sequence[State]
    ) -> tuple[Array, list[State]]:
        """One token for each of `states`, whatever their positions: (logits [states, vocab] fp32,
        the states after). Every row has the bits a call with that state alone would give it.

        In numpy the weights are gone through once for all. MLX would choose another product for
        more rows, with other roundings, so there the states are computed one after the other.
        Raises TokenRangeError.
        """
        ids = self._checked(tokens)
        if len(ids) != len(states):
            raise ValueError(f"{len(ids)} tokens for {len(states)} states")
        if len(states) == 1 or self._on_host is None:
            each = [self([t], state) for t, state in zip(ids.tolist(), states, strict=True)]
            logits = [logits for logits, _ in each]
            return library(logits[0]).stack(logits), [after for _, after in each]
        positions = np.array([state.position for state in states], dtype=np.int64)
        streams, layers = self._step_on_host(
            self._on_host, ids, positions, [_in_numpy(state).layers for state in states]
        )
        return self._logits(streams, self._on_host)[:, 0], _states(positions, layers)

    def pass_over(self, tokens: Sequence[int], state: State) -> Trail:
        """One after the other `tokens`, the first of which is known and the rest guessed: the
        logits of each, and the state after as many as turn out right. `evaluate` it.

        In numpy every token has the bits that a call with it alone gives, so that guessing changes
        no result; the weights are gone through once. In MLX they are those of a chunk.
        Raises TokenRangeError.
        """
        ids = self._checked(tokens)
        if self._on_host is not None:
            positions = np.arange(state.position, state.position + len(ids), dtype=np.int64)
            before = [_in_numpy(state).layers]
            streams, chain = self._step_on_host(self._on_host, ids, positions, before)
            logits = self._logits(streams, self._on_host)[:, 0]
            return trail_of_states(logits, streams[:, 0], _states(positions, chain))
        took: list[Advanced] = []
        streams = self._through_layers(
            self._parameters,
            ids,
            state.position,
            state.layers.__getitem__,
            lambda layer, advanced: took.append(advanced),
            last_only=False,
        )
        logits = self._logits(streams, self._parameters)
        return trail_of_layers(logits, streams, state, took, self.config)

    def go_on(
        self, streams: Array, tokens: Sequence[int], state: State
    ) -> tuple[Array, Array, State]:
        """Like a call, but through given `streams` [tokens, n, hidden] instead of the embeddings:
        (logits [vocab], streams [1, n, hidden] of the last token, the state)."""
        ids, weights = self._checked(tokens), self._on_host or self._parameters
        layers = list((state if self._on_host is None else _in_numpy(state)).layers)
        streams = self._through_layers(
            weights,
            ids,
            state.position,
            layers.__getitem__,
            lambda layer, advanced: layers.__setitem__(layer, advanced.state),
            last_only=True,
            streams=streams,
        )
        after = State(state.position + len(ids), tuple(layers))
        return self._logits(streams, weights)[0], streams, after

    def embedded(self, tokens: Sequence[int]) -> Array:
        """[tokens, hidden], in the library it computes in. Raises TokenRangeError."""
        ids = self._checked(tokens)
        if self._on_host is not None:
            return rows_of(self._on_host.embed, ids)
        return rows_of(self._parameters.embed, mx.array(ids))

    def _forward(
        self, tokens: Sequence[int], state: State, *, last_only: bool
    ) -> tuple[Array, State]:
        """Logits [tokens or 1, vocab] and the state after `tokens`."""
        ids = self._checked(tokens)
        if self._on_host is None:
            layers = list(state.layers)
            streams = self._through_layers(
                self._parameters,
                ids,
                state.position,
                layers.__getitem__,
                lambda layer, advanced: layers.__setitem__(layer, advanced.state),
                last_only=last_only,
            )
            logits = self._logits(streams, self._parameters)
            return logits, State(state.position + len(ids), tuple(layers))
        return self._forward_on_host(self._on_host, ids, state, last_only=last_only)

    def _forward_on_host(
        self, weights: Parameters, ids: NDArray[np.int32], state: State, *, last_only: bool
    ) -> tuple[Array, State]:
        """The same in numpy, with the cores side by side. No thread but this one touches MLX."""
        before = _in_numpy(state).layers

        def work(start: int, stop: int, before: Before, behind: Behind) -> Array:
            return self._through_layers(
                weights, ids[start:stop], state.position + start, before,
                lambda layer, advanced: behind(layer, advanced.state), last_only=last_only,
            )  # fmt: skip

        streams, layers = run_parts(list(part_spans(len(ids))), before, work)
        wanted = streams[-1:] if last_only else streams
        logits = self._logits(np.concatenate(wanted, axis=0), weights)
        return logits, State(state.position + len(ids), tuple(layers))

    @np.errstate(over="ignore", invalid="ignore")  # what comes of them is found in the logits
    def _through_layers(
        self,
        weights: Parameters,
        ids: NDArray[np.int32],
        position: int,
        before: Before,
        behind: Callable[[int, Advanced], None],
        *,
        last_only: bool,
        streams: Array | None = None,
    ) -> Array:
        """The residual streams [tokens or 1, n, hidden] behind the last layer, in the library of
        the weights; before the first they are the embeddings, unless `streams` are given. Asks for
        each layer's state `before` the tokens, hands on what it took in."""
        embed, config = weights.embed, self.config
        in_numpy = weights is self._on_host
        ops = PURE if in_numpy else self._operations
        if streams is None:
            shape = (len(ids), config.hc_mult, config.hidden_size)
            rows = rows_of(embed, ids if in_numpy else mx.array(ids))
            streams = library(rows).broadcast_to(rows[:, None], shape)
        positions = np.arange(position, position + len(ids), dtype=np.int64)
        turns = turns_of(positions, config, self._rotary, in_numpy=in_numpy)
        for layer, own in enumerate(weights.layers):
            x, mixing = ops.read_streams(streams, own.attention_hyper, own.attention_norm, config)
            advanced = advance(
                x, position, layer, before(layer), own.attention, turns, config, self._rotary
            )
            behind(layer, advanced)
            # Behind the last layer nothing but the state is ever used of most tokens.
            first = len(ids) - 1 if last_only and layer == len(weights.layers) - 1 else 0
            y = attend(
                advanced, position, layer, own.attention, turns, config,
                queries_from=first, ops=ops,
            )  # fmt: skip
            streams = ops.write_streams(streams[first:], y, mixing.from_token(first))
            x, mixing = ops.read_streams(streams, own.expert_hyper, own.expert_norm, config)
            chosen, shares = route(x, ids[first:], own.experts, config)
            y = apply_experts(x, chosen, shares, own.experts, config)
            streams = ops.write_streams(streams, y, mixing)
        return streams

    @np.errstate(over="ignore", invalid="ignore")
    def _step_on_host(
        self,
        weights: Parameters,
        ids: NDArray[np.int32],
        positions: NDArray[np.int64],
        states: Sequence[Sequence[LayerState]],
    ) -> tuple[Array, list[list[LayerState]]]:
        """One of `ids` at each of `positions` behind its state, or, where there are fewer states,
        behind the one before it; all in numpy. Arrays are [ids, 1, ...]: (streams behind the last
        layer, of each layer the states after each id)."""
        embed, config = weights.embed, self.config
        tables = turns_of(positions, config, self._rotary, in_numpy=True)
        turns = Turns(
            *(table[:, None] for table in (tables.sliding, tables.compressed, tables.index))
        )
        ids = ids[:, None]
        shape = (len(ids), 1, config.hc_mult, config.hidden_size)
        streams = np.broadcast_to(embed[ids][:, :, None], shape)
        layers: list[list[LayerState]] = []
        for layer, own in enumerate(weights.layers):
            x, mixing = read_streams(streams, own.attention_hyper, own.attention_norm, config)
            before = [state[layer] for state in states]
            y, after = attend_each(
                x, positions, layer, before, own.attention, turns, config, self._rotary
            )
            layers.append(after)
            streams = write_streams(streams, y, mixing)
            x, mixing = read_streams(streams, own.expert_hyper, own.expert_norm, config)
            chosen, shares = route(x, ids, own.experts, config)
            y = apply_experts(x, chosen, shares, own.experts, config)
            streams = write_streams(streams, y, mixing)
        return streams, layers

    @np.errstate(over="ignore", invalid="ignore")
    def _logits(self, streams: Array, p: Parameters) -> Array:
        """[..., vocab] fp32 of streams [..., n, hidden]."""
        x = collapse_streams(streams, p.head_fn, p.head_base, self.config)
        return product(rms_norm(x, p.norm, self.config.rms_norm_eps), p.head)

    def _checked(self, tokens: Sequence[int]) -> NDArray[np.int32]:
        ids = np.asarray(tokens, dtype=np.int64)
        if ids.ndim != 1 or not len(ids):
            raise TokenRangeError("the model needs at least one token id to go on")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            wrong = int(ids[(ids < 0) | (ids >= self.config.vocab_size)][0])
            raise TokenRangeError(
                f"token id {wrong} is not in the vocabulary of {self.config.vocab_size:,} ids; "
                "the tokenizer belongs to another model"
            )
        return ids.astype(np.int32)


def _states(positions: NDArray[np.int64], layers: Sequence[Sequence[LayerState]]) -> list[State]:
    """After each of the tokens at `positions`; `layers` has them layer by layer."""
    own_layers = zip(*layers, strict=True)
    return [State(int(p) + 1, own) for p, own in zip(positions, own_layers, strict=True)]


def _in_numpy(state: State) -> State:
    """The same with every array, if it is of MLX, as a numpy view of it."""
    if not isinstance(state.layers[0].window, mx.array):
        return state
    # At the beginning, or read from disk.
    layers = [layer.mapped(lambda leaf: np.array(leaf, copy=False)) for layer in state.layers]
    return State(state.position, tuple(layers))
