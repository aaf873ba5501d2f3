"""What one prompt may use, and what the user is told when that or something else stops it."""

from __future__ import annotations

from dataclasses import dataclass

from ds4_agent.agent.events import TurnReason

__all__ = ["MALFORMED_LIMIT", "Limits", "why_it_ended"]

MALFORMED_LIMIT = 3  # steps in a row whose calls cannot be read


@dataclass(frozen=True)
class Limits:
    """What one prompt may use; None is unlimited."""

    max_turns: int | None = None  # model steps
    max_tokens: int | None = None  # output tokens
    seconds: float | None = None


def why_it_ended(reason: TurnReason, limits: Limits, context_limit: int) -> str:
    """One sentence for the user, "" where the model ended its turn."""
    seconds = limits.seconds or 0
    return {
        "end": "",
        "max_turns": f"stopped after {limits.max_turns} model steps (--max-turns)",
        "max_tokens": "stopped: the answer reached its length limit (--max-tokens)",
        "time_limit": f"stopped after {seconds:g} s (--time-limit)",
        "context": f"stopped: the context of {context_limit:,} tokens is full (--ctx)",
        "repeated_call": "stopped: the same call again and again",
        "malformed": f"stopped: {MALFORMED_LIMIT} calls in a row could not be read",
        "interrupted": "interrupted",
    }[reason]
