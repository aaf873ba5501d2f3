"""DeepSeek V4 Flash: `model(tokens, state) -> logits, state'`. In: token ids and an immutable
state. Out: fp32 logits of the last token and the state after all of them, both lazy. It holds
weights and constants only; everything that changes is in the state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import TokenRangeError
from ds4_agent.engine.model.arrays import Array, library, like, on_host, rms_norm, stored
from ds4_agent.engine.model.attention import Turns, attend, turns_of
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.experts import apply_experts, route
from ds4_agent.engine.model.hyper import collapse_streams, read_streams, write_streams
from ds4_agent.engine.model.parameters import LayerWeights, Parameters
from ds4_agent.engine.model.parts import part_spans, start_parts
from ds4_agent.engine.model.rope import Rotary
from ds4_agent.engine.model.state import LayerState, State, initial_state
from ds4_agent.engine.model.tiles import on_cpu

__all__ = ["Model"]


# Fewer tokens are computed in numpy on a CPU; see arrays.py.
NUMPY_TOKENS = 64


@dataclass
class _Part:
    """A run of a chunk's tokens on its way through the layers, on an MLX stream of its own."""

    position: int  # of its first token
    ids: NDArray[np.int32]
    stream: mx.Stream
    turns: Turns
    streams: Array  # [tokens, n, hidden]: the residual streams


class Model:
    """A loaded model. Its calls are pure: equal tokens and state give equal results."""

    def __init__(
        self, config: ModelConfig, parameters: Parameters, *, few_in_numpy: bool = True
    ) -> None:
        """`parameters` are evaluated. Without `few_in_numpy` a CPU too computes all in MLX, which
        is slower there and otherwise the same."""
        self.config = config
        self._parameters = parameters
        self._rotary = Rotary.of(config)
        self._in_numpy = None
        if on_cpu() and parameters.dtype == mx.float32 and few_in_numpy:
            self._in_numpy = on_host(parameters)

    @property
    def dtype(self) -> mx.Dtype:
        """The stream dtype, also that of stored rows."""
        return self._parameters.dtype

    def init_state(self) -> State:
        """The state before the first token."""
        return initial_state(self.config, self.dtype)

    def __call__(self, tokens: Sequence[int], state: State) -> tuple[mx.array, State]:
        """Logits [vocab] fp32 of the last of `tokens`, and the state after them.

        Evaluate both with `mx.eval(logits, *state.leaves())`. At least one token; prefill cuts
        long prompts into chunks. Raises TokenRangeError.
        """
        streams, after, weights = self._forward(tokens, state)
        return self._logits(streams[-1:], weights)[0], after

    def logits_all(self, tokens: Sequence[int], state: State) -> tuple[mx.array, State]:
        """Like a call, with logits [tokens, vocab] of every token. For tests and evaluation."""
        streams, after, weights = self._forward(tokens, state)
        return self._logits(streams, weights), after

    def _forward(self, tokens: Sequence[int], state: State) -> tuple[Array, State, Parameters]:
        """(the residual streams [tokens, n, hidden] behind the last layer, the state after it, the
        weights in the library of the streams)."""
        ids = self._checked(tokens)
        weights, parts = self._parameters, list(part_spans(len(ids)))
        if self._in_numpy is not None and len(ids) < NUMPY_TOKENS:
            weights, parts = self._in_numpy, [(0, len(ids), mx.default_stream(mx.cpu))]
        cut = [self._part(a, ids[a:b], stream, weights, state) for a, b, stream in parts]
        layers = []
        for layer, before in enumerate(state.layers):
            layers.append(self._layer(cut, layer, before, weights.layers[layer]))
        streams = [part.streams for part in cut]
        joined = streams[0] if len(cut) == 1 else mx.concatenate(streams, axis=0)
        return joined, State(state.position + len(ids), tuple(layers)), weights

    def _part(
        self,
        start: int,
        ids: NDArray[np.int32],
        stream: mx.Stream,
        weights: Parameters,
        state: State,
    ) -> "_Part":
        with mx.stream(stream):
            embed, shape = weights.embed, (len(ids), self.config.hc_mult, self.config.hidden_size)
            streams = library(embed).broadcast_to(embed[like(embed, ids)][:, None], shape)
            turns = turns_of(
                state.position + start,
                len(ids),
                self.config,
                self._rotary,
                in_numpy=weights is self._in_numpy,
            )
        return _Part(state.position + start, ids, stream, turns, streams)

    def _layer(
        self, parts: Sequence["_Part"], layer: int, state: LayerState, weights: LayerWeights
    ) -> LayerState:
        """Takes the parts' streams through a layer; returns its state after the last part."""
        config, routed = self.config, []
        for part in parts:
            with mx.stream(part.stream):
                x, mixing = read_streams(
                    part.streams, weights.attention_hyper, weights.attention_norm, config
                )
                y, state = attend(
                    x,
                    part.position,
                    layer,
                    state,
                    weights.attention,
                    part.turns,
                    config,
                    self._rotary,
                )
                part.streams = write_streams(part.streams, y, mixing)
                x, mixing = read_streams(
                    part.streams, weights.expert_hyper, weights.expert_norm, config
                )
                routed.append((x, mixing, *route(x, part.ids, weights.experts, config)))
            start_parts(parts, [x, routed[-1][3]])
        for part, (x, mixing, chosen, shares) in zip(parts, routed, strict=True):
            with mx.stream(part.stream):
                y = apply_experts(x, chosen, shares, weights.experts, config)
                part.streams = write_streams(part.streams, y, mixing)
            start_parts(parts, [part.streams])
        return state

    def _logits(self, streams: Array, p: Parameters) -> mx.array:
        x = collapse_streams(streams, p.head_fn, p.head_base, self.config)
        logits = rms_norm(x, p.norm, self.config.rms_norm_eps) @ p.head.T
        return stored(logits, mx.float32)

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
