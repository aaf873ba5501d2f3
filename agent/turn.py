"""One prompt under way: what was done for it so far, and whether it has to end. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from ds4_agent.agent import events as ev
from ds4_agent.agent.limits import MALFORMED_LIMIT, Limits

__all__ = ["End", "Turn", "why_it_stops"]

TELLING = 128  # tokens of a prefill from which on its speed is that of a long one


@dataclass
class Turn:
    """One prompt under way."""

    steps: int = 0
    malformed: int = 0
    text: str = ""
    usage: ev.Usage = field(default_factory=ev.Usage)
    steered: tuple[str, ...] = ()  # taken from those that wait, not given to the model yet
    longest: tuple[int, float] = (0, 0.0)  # prefill: its tokens, tokens a second

    @property
    def prefill_rate(self) -> float:
        """Tokens a second; 0.0 where only a few were computed, which takes longer for each."""
        tokens, rate = self.longest
        return round(rate, 1) if tokens >= TELLING else 0.0

    def took(self, text: str, usage: ev.Usage, prefill_rate: float) -> None:
        """A step was made."""
        self.text = text
        self.usage += usage
        self.longest = max(self.longest, (usage.prefilled_tokens, prefill_rate))


@dataclass(frozen=True)
class End:
    """Why a turn ends; `detail` is one sentence where the reason alone does not say it."""

    reason: ev.TurnReason
    detail: str = ""


def why_it_stops(turn: Turn, circle: str, limits: Limits, tokens_left: int) -> End | None:
    """Whether a turn ends although the model wants to go on. `circle`: see `calls.Answer`."""
    if circle:
        return End("repeated_call", circle)
    if turn.malformed >= MALFORMED_LIMIT:
        return End("malformed")
    if limits.max_turns is not None and turn.steps >= limits.max_turns:
        return End("max_turns")
    if tokens_left < 1:
        return End("max_tokens")
    return None
