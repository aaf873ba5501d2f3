"""What a session has cost so far, and how fast the model writes now. In: events, a clock, the
context's length. Out: sums and a speed; every number is the engine's own.
"""

from dataclasses import dataclass, field

from ds4_agent.agent.events import (
    CallStarted,
    Compacted,
    Event,
    PrefillProgressed,
    StepFinished,
    TextDelta,
    ThinkingDelta,
    TurnEnded,
    Usage,
)

__all__ = ["Tally"]

LEAST = 0.5  # seconds of writing before its speed says anything


@dataclass
class Tally:
    """Sums over the turns that are over. `last`: of the newest, None before the first."""

    usage: Usage = field(default_factory=Usage)
    last: Usage | None = None
    seconds: float = 0.0
    turns: int = 0
    _since: tuple[float, int] | None = None  # time and context when the model began to write

    def count(self, event: Event, now: float, context_tokens: int) -> None:
        """`context_tokens` are in use `now`."""
        match event:
            case ThinkingDelta() | TextDelta() | CallStarted():
                self._since = self._since or (now, context_tokens)
            case StepFinished() | PrefillProgressed():
                self._since = None
            case TurnEnded(usage=usage, seconds=seconds):
                self.usage += usage
                self.last = usage
                self.seconds += seconds
                self.turns += 1
                self._since = None
            case Compacted(usage=usage):
                self.usage += usage

    def speed(self, now: float, context_tokens: int) -> float:
        """Tokens a second since the model began to write; 0 while it cannot be told."""
        if self._since is None:
            return 0.0
        since, before = self._since
        passed, written = now - since, context_tokens - before
        return written / passed if passed >= LEAST and written > 0 else 0.0
