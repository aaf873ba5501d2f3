"""The seam of speculation: whoever guesses the next ids is a `Drafter`. In: the ids of a context so
far. Out: an offer, or nothing. A guess costs time at the most: the ids that come are drawn from the
model's own logits, whatever was guessed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Drafter", "Offer"]


@dataclass(frozen=True)
class Offer:
    """What a drafter has. `draft(n)` is its next `n` ids, or fewer; n is at most `available`."""

    kind: str  # offers of one kind come true about as often: what is measured of them
    available: int  # at least one
    draft: Callable[[int], Sequence[int]]
    first: int | None = None  # the first id, where it is known before `draft` works for it


class Drafter(Protocol):
    """Guesses for one context, which only grows; after a rewind there is a new drafter."""

    def propose(self, ids: Sequence[int]) -> Offer | None:
        """What may come behind `ids`, those of the last call and more."""
        ...
