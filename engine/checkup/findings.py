"""What a check of a model found, as a plain value. In: nothing. Out: a `Finding`, whose figures
JSON can hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ds4_agent.engine.errors import EngineError

__all__ = ["Finding", "Verdict", "found"]

Verdict = Literal["passed", "failed", "measured", "not made"]


@dataclass(frozen=True)
class Finding:
    """Of one check. "not made": it makes no sense here, which `said` explains; no failure."""

    check: str
    verdict: Verdict
    said: str  # one sentence
    figures: Mapping[str, Any] = field(default_factory=dict)


def found(check: str, make: Callable[[], Finding]) -> Finding:
    """What `make` finds; an error of the engine is a failure of that check, not of the others."""
    try:
        return make()
    except EngineError as error:
        return Finding(check, "failed", str(error))
