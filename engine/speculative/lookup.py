"""Drafts from the context itself: what stood behind the longest earlier occurrence of the last ids,
of several as long the latest. The file that is edited is there too, as the result of a read. In:
the ids so far. Out: an offer. No weights, no tokenizer.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.speculative.drafter import Offer

__all__ = ["LEAST_MATCH", "LONGEST_DRAFT", "Lookup"]

LEAST_MATCH = 2  # ids: one alone says little about the next
LONGEST_MATCH = 24  # compared; beyond, all are as good
LONGEST_DRAFT = 16
CANDIDATES = 256  # the latest occurrences of the last LEAST_MATCH ids: so many are compared further
# Matches of up to so many ids are measured together.
CLASSES = (2, 3, 5, 8, 16, LONGEST_MATCH)


class Lookup:
    """The `Drafter` without a model."""

    def __init__(self) -> None:
        self._room = np.empty(1024, np.uint32)
        self._count = 0

    def propose(self, ids: Sequence[int]) -> Offer | None:
        """See `Drafter.propose`. Goes through all ids twice: 0.1 ms for 100,000."""
        own = self._grown(ids)
        found = _longest_match(own)
        if found is None:
            return None
        end, length = found
        # Behind an occurrence near the end the text repeats itself, and so does the draft.
        draft: list[int] = np.resize(own[end:], LONGEST_DRAFT).tolist()
        largest = next(size for size in CLASSES if length <= size)
        return Offer(f"match of {largest}", len(draft), lambda n: draft[:n], draft[0])

    def _grown(self, ids: Sequence[int]) -> NDArray[np.uint32]:
        """All of `ids`, of which the first were there before."""
        new = ids[self._count :]
        total = self._count + len(new)
        if total > len(self._room):
            room = np.empty(2 * total, np.uint32)
            room[: self._count] = self._room[: self._count]
            self._room = room
        self._room[self._count : total] = new
        self._count = total
        return self._room[:total]


def _longest_match(ids: NDArray[np.uint32]) -> tuple[int, int] | None:
    """(where an earlier occurrence of the last ids ends, their number), or None."""
    count = len(ids)
    if count <= LEAST_MATCH:
        return None
    is_there = ids[LEAST_MATCH - 1 : -1] == ids[-1]
    for step in range(1, LEAST_MATCH):
        is_there &= ids[LEAST_MATCH - 1 - step : -1 - step] == ids[-1 - step]
    lasts = np.flatnonzero(is_there)[-CANDIDATES:] + LEAST_MATCH - 1
    if not len(lasts):
        return None
    back = np.arange(min(LONGEST_MATCH, count))
    places = lasts[:, None] - back
    differs = (ids[places] != ids[count - 1 - back]) | (places < 0)
    lengths = np.where(differs.any(axis=1), differs.argmax(axis=1), len(back))
    best = int(np.flatnonzero(lengths == lengths.max())[-1])
    return int(lasts[best]) + 1, int(lengths[best])
