"""What a run has cost so far, as `/cost` and `/why-slow` tell it.

In: the agent's events. Out: exact counts since the run began.
"""

from dataclasses import dataclass, field

from ds4_agent.agent.events import Compacted, TurnEnded, Usage

__all__ = ["Tally"]


@dataclass
class Tally:
    """`last` is of the last prompt, None before the first; `worked` in seconds."""

    usage: Usage = field(default_factory=Usage)
    last: Usage | None = None
    worked: float = 0.0
    turns: int = 0

    def note(self, event: object) -> None:
        """Count what an event tells."""
        if isinstance(event, TurnEnded):
            self.usage += event.usage
            self.last = event.usage
            self.worked += event.seconds
            self.turns += 1
        elif isinstance(event, Compacted):
            self.usage += event.usage
