"""Drafts of a draft layer that the checkpoint brings. In: the ids of a context, and the streams
that each pass of the model left behind. Out: offers. Its own window begins where guessing begins;
what it does not know makes a guess worse, never a token wrong.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ds4_agent.engine.speculative.drafter import Offer
from ds4_agent.engine.worker import Worker

if TYPE_CHECKING:
    from ds4_agent.engine.model.draft import DraftLayer

__all__ = ["LONGEST_DRAFT", "LayerDrafter"]

LONGEST_DRAFT = 3  # the layer was trained for one id; what it makes of its own guesses wears off
MOST_SEEN = 256  # passes not yet taken in


class LayerDrafter:
    """A `Drafter` that also sees the streams of each pass."""

    def __init__(self, layer: "DraftLayer", worker: Worker, vocabulary: int) -> None:
        """`vocabulary`: ids below it are valid; the layer's logits may be padded beyond."""
        self._layer, self._worker, self._vocabulary = layer, worker, vocabulary
        self._state: Any = None
        # Of the positions from `_state`'s on, not yet taken in, and how many of each.
        self._streams: list[tuple[Any, int]] = []
        self._next = -1  # the position after the last of them

    def saw(self, position: int, streams: Any, count: int) -> None:
        """The first `count` of `streams` [tokens, n, hidden], evaluated, are of the tokens from
        `position` on. They are cut later, on the engine thread."""
        if position != self._next:  # some were computed without being seen: begin anew
            self._state, self._streams = None, []
        self._streams.append((streams, count))
        self._next = position + count
        if len(self._streams) > MOST_SEEN:  # while others guessed: more than its window anyway
            self._state, self._streams = None, self._streams[-MOST_SEEN // 2 :]

    def propose(self, ids: Sequence[int]) -> Offer | None:
        """See `Drafter.propose`. Has something where the last id but one was the last seen."""
        if not self._streams or self._next != len(ids) - 1:
            return None
        known = list(ids[-sum(count for _, count in self._streams) :])
        return Offer(
            "draft layer", LONGEST_DRAFT, lambda n: self._worker.call(self._draft, known, n)
        )

    def _draft(self, known: list[int], count: int) -> list[int]:
        """Runs on the engine thread: `count` ids behind `known`, the ids behind what was seen."""
        from ds4_agent.engine.model.arrays import library
        from ds4_agent.engine.model.state import evaluate

        state = self._state or self._layer.model.init_state()
        seen = [streams[:own] for streams, own in self._streams]
        streams = library(seen[0]).concatenate(seen, axis=0)
        self._streams, ids, drafted = [], known, list[int]()
        for number in range(count):
            logits, streams, state = self._layer.step(ids, streams, state)
            evaluate(logits, state)
            if number == 0:
                self._state = state  # what follows is guessed from guesses
            ids = [int(np.argmax(np.array(logits)[: self._vocabulary]))]
            drafted += ids
        return drafted
