"""What one context guesses, and what was computed on the strength of it. In: its ids, its grammar,
and the ids as they are drawn. Out: the guesses worth a place in the next pass, and the logits that
are there already for ids that were guessed right. It draws nothing: every id comes from the model's
own logits by the sampler's own random numbers, so guessing changes no distribution and no seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.api import GrammarState
from ds4_agent.engine.dsml.constraints import Forced, OneOf
from ds4_agent.engine.speculative.drafter import Drafter, Offer
from ds4_agent.engine.speculative.layer import LayerDrafter
from ds4_agent.engine.speculative.pace import Pace

if TYPE_CHECKING:
    from ds4_agent.engine.model.trail import Trail

__all__ = ["Ahead", "Lookahead"]


@dataclass
class Ahead:
    """A pass over the last id of a context and the guesses behind it."""

    start: int  # the position of the first of `ids`
    ids: Sequence[int]
    logits: NDArray[np.float32]  # [ids, vocab]
    trail: "Trail"
    taken: int = 1  # of the ids, those that turned out right

    def takes(self, log: Sequence[int]) -> bool:
        """Whether the last of `log`, and it alone, is new and was guessed; it is taken then."""
        is_next = self.taken < len(self.ids) and len(log) == self.start + self.taken + 1
        if is_next and log[-1] == self.ids[self.taken]:
            self.taken += 1
            return True
        return False


class Lookahead:
    """The guesses of one context. After a rewind there is a new one."""

    def __init__(
        self, pace: Pace, drafters: Sequence[Drafter], eos: int, layer: LayerDrafter | None = None
    ) -> None:
        """`drafters` are asked in order, `layer` after them; it has to be shown every pass."""
        self.pace = pace
        self.ahead: Ahead | None = None
        self._drafters = drafters if layer is None else (*drafters, layer)
        self.layer = layer
        self._eos = eos
        self._expected: list[int] = []  # what the next draws would be, were the guesses right
        self._kind = ""

    def guess(self, ids: Sequence[int], grammar: GrammarState | None, most: int) -> list[int]:
        """The ids, `most` at most, that the pass over the last of `ids` should take along."""
        self._expected = []
        for drafter in self._drafters:
            offer = drafter.propose(ids)
            if offer is None:
                continue
            guesses = self._worthwhile(offer, grammar, most)
            if guesses:
                return guesses
        return []

    def came(self, token_id: int) -> bool:
        """`token_id` was drawn; whether its logits are there because it was guessed."""
        expected, self._expected = self._expected, []
        if expected:
            is_hit = token_id == expected[0]
            self.pace.came(self._kind, is_hit=is_hit)
            self._expected = expected[1:] if is_hit else []
        ahead = self.ahead
        if ahead is None or ahead.taken == len(ahead.ids):
            return False
        return token_id == ahead.ids[ahead.taken]

    def _worthwhile(self, offer: Offer, grammar: GrammarState | None, most: int) -> list[int]:
        """The ids of an offer that pay; if none does, its first is still compared with what comes,
        so that it shows when it would."""
        count = self.pace.worth(offer.kind, min(offer.available, most)) if most > 0 else 0
        guesses = _fitting(offer.draft(count), grammar, self._eos) if count else []
        if guesses and len(guesses) < count:
            guesses = guesses[: self.pace.worth(offer.kind, len(guesses))]
        if guesses or (offer.first is not None and not self._expected):
            self._kind = offer.kind
            self._expected = list(guesses) or [offer.first or 0]
        return guesses


def _fitting(guesses: Sequence[int], grammar: GrammarState | None, eos: int) -> list[int]:
    """The first of `guesses`, as far as each may come and is followed by a choice: what a grammar
    forces is computed in one batch anyway, and so is no more than a guess's own state lost."""
    fitting: list[int] = []
    state = None if grammar is None else grammar.copy()
    for guess in guesses:
        if guess == eos:
            break
        if state is not None:
            constraint = state.constraint()
            if isinstance(constraint, Forced):
                break
            is_allowed = (
                guess in constraint.ids
                if isinstance(constraint, OneOf)
                else (guess not in constraint.banned)
            )
            if not is_allowed:
                break
            state.accept(guess)
            if isinstance(state.constraint(), Forced):
                break
        fitting.append(guess)
    return fitting
