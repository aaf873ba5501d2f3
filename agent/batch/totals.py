"""The figures of a whole batch, and its result object.

In: outcomes and what was computed. Out: JSON-ready dicts and sentences; every number is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ds4_agent.agent.batch.runner import Prefilled
from ds4_agent.agent.batch.task import Outcome, outcome_record
from ds4_agent.agent.events import Usage

__all__ = ["Ending", "prefill_figures", "prefill_text", "result_object", "summary"]


@dataclass(frozen=True)
class Ending:
    """How a batch ended. `count`: all its items; `error`: what stopped it, "" for nothing."""

    batch: str
    ledger: Path
    count: int
    outcomes: tuple[Outcome, ...]
    prefilled: Prefilled
    seconds: float
    commit: str = ""
    patch: str = ""
    is_stopped: bool = False
    error: str = ""

    def number(self, state: str) -> int:
        """Items that ended so."""
        return sum(outcome.state == state for outcome in self.outcomes)

    @property
    def pending(self) -> int:
        return self.count - len(self.outcomes)


def summary(ending: Ending) -> str:
    """`12 items: 10 changed, 1 unchanged, 1 failed`."""
    states = ("changed", "unchanged", "failed")
    parts = [f"{ending.number(state)} {state}" for state in states if ending.number(state)]
    parts += [f"{ending.pending} not done"] if ending.pending else []
    return f"{ending.count} item{'' if ending.count == 1 else 's'}: {', '.join(parts) or 'none'}"


def prefill_figures(prefilled: Prefilled) -> dict[str, int]:
    """What this run computed before sampling, beside P + N·s and what N runs alone would."""
    return {
        "prefilled_tokens": prefilled.computed,
        "shared_tokens": prefilled.shared,
        "own_tokens": prefilled.own,
        "items": prefilled.items,
        "expected_tokens": prefilled.shared + prefilled.own,
        "separate_tokens": prefilled.items * (prefilled.start - prefilled.example) + prefilled.own,
    }


def prefill_text(prefilled: Prefilled) -> str:
    """The same as a line; "" where the model did nothing."""
    if not prefilled.items:
        return ""
    figures = prefill_figures(prefilled)
    mean = prefilled.own / prefilled.items
    return (
        f"prefilled {figures['prefilled_tokens']:,} tokens; P + N·s = {prefilled.shared:,} + "
        f"{prefilled.items:,} · {mean:,.1f} = {figures['expected_tokens']:,}; "
        f"each item alone: {figures['separate_tokens']:,}"
    )


def result_object(ending: Ending) -> dict[str, Any]:
    """The last line of stream-json, and the whole of json."""
    usage = _sum(outcome.usage for outcome in ending.outcomes)
    is_error = bool(ending.error or ending.is_stopped or ending.number("failed"))
    subtype = "aborted" if ending.is_stopped else "error" if is_error else "success"
    return {
        "type": "result",
        "subtype": subtype,
        "is_error": is_error,
        "result": ending.error or summary(ending),
        "stop_reason": _reason(ending),
        "session_id": ending.batch,
        "num_turns": sum(outcome.turns for outcome in ending.outcomes),
        "duration_ms": round(ending.seconds * 1000),
        "usage": asdict(usage),
        "batch": {
            "items": ending.count,
            **{state: ending.number(state) for state in ("changed", "unchanged", "failed")},
            "pending": ending.pending,
            "ledger": str(ending.ledger),
            "patch": ending.patch,
            "commit": ending.commit,
            "prefill": prefill_figures(ending.prefilled),
        },
        "items": _items(ending.outcomes),
    }


def _reason(ending: Ending) -> str:
    if ending.is_stopped:
        return "interrupted by a signal"
    if ending.error:
        return "error"
    failed = ending.number("failed")
    return f"{failed} item{'' if failed == 1 else 's'} failed" if failed else "end"


def _items(outcomes: Sequence[Outcome]) -> list[Mapping[str, Any]]:
    ordered = sorted(outcomes, key=lambda outcome: outcome.item.number)
    return [{"item": outcome.item.number, **outcome_record(outcome)} for outcome in ordered]


def _sum(usages: Iterable[Usage]) -> Usage:
    total = Usage()
    for usage in usages:
        total += usage
    return total
