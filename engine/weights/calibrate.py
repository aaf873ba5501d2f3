"""Runs text through a model and records how large the inputs of its products are. In: a loaded
model and windows of token ids. Out: `Importance`. It quantises nothing and writes nothing.

The model is the one to be quantised, or one that computes nearly alike, and has to be loaded whole:
whoever cannot may take the importance file that a larger machine has made.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.arrays import Array
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.packed import Observed, Weight
from ds4_agent.engine.model.parameters import AttentionWeights, ExpertWeights, Parameters
from ds4_agent.engine.model.prefill import chunk_spans
from ds4_agent.engine.model.state import evaluate
from ds4_agent.engine.weights.importance import DOWN, GATE_UP, Importance

__all__ = ["collect_importance"]

# An expert counts as if it had also seen so many rows of the layer's mean: of a few rows of its own
# most inputs would seem to matter to it much more, or less, than they do.
PRIOR_ROWS = 16.0
CHUNK = 512  # tokens; each gives logits [vocab], which nobody wants


def collect_importance(
    model: Model,
    windows: Sequence[Sequence[int]],
    on_tokens: Callable[[int, int], None] = lambda _done, _total: None,
) -> Importance:
    """Run `windows` of token ids, each behind a new beginning, through `model`.

    `on_tokens(done, total)` follows each chunk and may raise.
    """
    recorder, done, total = _Recorder(), 0, sum(map(len, windows))
    observed = model.changed(recorder.observing)
    for ids in windows:
        state = observed.init_state()
        for a, b in chunk_spans(0, len(ids), CHUNK):
            # All logits: the last layer computes no others' rows, and they count like any.
            logits, state = observed.logits_all(ids[a:b], state)
            evaluate(logits, state)
            done += b - a
            on_tokens(done, total)
    return recorder.importance()


class _Recorder:
    """Adds up the squares of what a model's products see."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}  # [groups, k]
        self._rows: dict[str, NDArray[np.int64]] = {}  # [groups]
        self._lock = threading.Lock()  # parts of a chunk are computed side by side
        self._is_plain: set[str] = set()

    def importance(self) -> Importance:
        """What was seen so far."""
        means = {}
        for name, sums in self._sums.items():
            rows = self._rows[name][:, None].astype(np.float64)
            prior = PRIOR_ROWS if ".experts." in name else 0.0
            layer = sums.sum(axis=0) / rows.sum()
            means[name] = ((sums + prior * layer) / (rows + prior)).astype(np.float32)
        plain = self._is_plain & self._sums.keys()
        return Importance(
            means | {name: means[name][0] for name in plain},
            self._rows | {name: self._rows[name][0] for name in plain},
        )

    def observing(self, parameters: Parameters) -> Parameters:
        """The same weights, each quantisable one observed."""
        layers = []
        for number, layer in enumerate(parameters.layers):
            at = f"layers.{number}."
            attention = self._attention(f"{at}attn.", layer.attention)
            experts = self._experts(f"{at}ffn.", layer.experts)
            layers.append(replace(layer, attention=attention, experts=experts))
        head = self._plain("head.weight", parameters.head)
        return replace(parameters, layers=tuple(layers), head=head)

    def _attention(self, at: str, weights: AttentionWeights) -> AttentionWeights:
        return replace(
            weights,
            inputs=self._plain(f"{at}wq_a.weight", weights.inputs),
            # The indexer's queries have the same input, and are made only when it has a say.
            q=self._plain(f"{at}wq_b.weight", weights.q),
            out_groups=self._by_group(f"{at}wo_a.weight", weights.out_groups),
            out=self._plain(f"{at}wo_b.weight", weights.out),
        )

    def _experts(self, at: str, weights: ExpertWeights) -> ExpertWeights:
        count = len(weights.router)
        return replace(
            weights,
            gate_up=self._by_expert(f"{at}experts.{GATE_UP}", weights.gate_up, count),
            down=self._by_expert(f"{at}experts.{DOWN}", weights.down, count),
            shared_gate_up=self._plain(f"{at}shared_experts.w1.weight", weights.shared_gate_up),
            shared_down=self._plain(f"{at}shared_experts.w2.weight", weights.shared_down),
        )

    def _plain(self, name: str, weight: Weight) -> Observed:
        self._is_plain.add(name)

        def see(rows: Array, _: object) -> None:
            squares = _squares(rows).reshape(-1, rows.shape[-1])
            self._add(name, 0, 1, squares.sum(axis=0), len(squares))

        return Observed(weight, see)

    def _by_group(self, name: str, weight: Weight) -> Observed:
        def see(rows: Array, _: object) -> None:  # [groups, tokens, k]
            squares = _squares(rows)
            self._add(name, slice(None), len(squares), squares.sum(axis=1), squares.shape[1])

        return Observed(weight, see)

    def _by_expert(self, name: str, weight: Weight, count: int) -> Observed:
        def see(rows: Array, experts: int | mx.array) -> None:
            squares = _squares(rows).reshape(-1, rows.shape[-1])
            if isinstance(experts, int):
                self._add(name, experts, count, squares.sum(axis=0), len(squares))
                return
            # Gathered on a GPU: [tokens, 1] of tokens' rows, or one of each row.
            numbers = np.array(experts).reshape(len(squares), -1)
            for expert in np.unique(numbers).tolist():
                times = (numbers == expert).sum(axis=1)
                self._add(name, expert, count, times @ squares, int(times.sum()))

        return Observed(weight, see)

    def _add(
        self,
        name: str,
        where: int | slice,
        groups: int,
        sums: NDArray[np.float64],
        rows: int,
    ) -> None:
        with self._lock:
            if name not in self._sums:
                self._sums[name] = np.zeros((groups, sums.shape[-1]))
                self._rows[name] = np.zeros(groups, np.int64)
            self._sums[name][where] += sums
            self._rows[name][where] += rows


def _squares(rows: Array) -> NDArray[np.float64]:
    """Evaluated at once: a graph that is kept would hold a chunk's activations."""
    values = rows.astype(mx.float32) if isinstance(rows, mx.array) else rows
    return np.square(np.array(values, dtype=np.float64))
