"""One prompt under way: what was done for it so far, and whether it has to end. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from ds4_agent.agent import events as ev
from ds4_agent.agent.limits import MALFORMED_LIMIT, Limits

__all__ = ["End", "Turn", "why_it_stops"]


@dataclass
class Turn:
    """One prompt under way."""

    steps: int = 0
    malformed: int = 0
    text: str = ""
    usage: ev.Usage = field(default_factory=ev.Usage)
    steered: tuple[str, ...] = ()  # taken from those that wait, not given to the model yet


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
