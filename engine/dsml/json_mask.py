"""Which ids may come next inside a JSON value. In: a JSON state. Out: a constraint over ids.
Computed when a state is first met (milliseconds), then a look-up.
"""

import re

from ds4_agent.engine.dsml.constraints import Constraint, Free, OneOf
from ds4_agent.engine.dsml.json_bytes import JsonState, advance, is_in_string, step
from ds4_agent.engine.dsml.vocabulary import Vocabulary

_NEEDS_A_LOOK = re.compile(rb'["\\\x00-\x1f]')

__all__ = ["JsonMasks"]


class JsonMasks:
    """The masks of one vocabulary, kept by state."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._kept: dict[JsonState, Constraint] = {}
        self._quoting: list[tuple[bytes, int]] | None = None

    def constraint(self, state: JsonState) -> Constraint:
        """What may follow in `state`; not for CLOSED, where no data id may."""
        kept = self._kept.get(state)
        if kept is None:
            kept = self._in_string(state) if is_in_string(state) else self._outside(state)
            self._kept[state] = kept
        return kept

    def _in_string(self, state: JsonState) -> Constraint:
        # Ids without quote, backslash and control bytes always fit; the few others are tried.
        if self._quoting is None:
            self._quoting = [
                (piece, i) for piece, i in self._vocabulary if _NEEDS_A_LOOK.search(piece)
            ]
        misfits = {i for piece, i in self._quoting if advance(state, piece) is None}
        return Free(self._vocabulary.control_ids | misfits)

    def _outside(self, state: JsonState) -> Constraint:
        return OneOf(frozenset(self._vocabulary.accepted_by(state, step)))
