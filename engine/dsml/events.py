"""What the parser reports while a model's turn is being sampled, and what it found at the end.
Plain frozen values; the deltas of a text, joined, are exactly the text of the final value.
"""

from dataclasses import dataclass

from ds4_agent.engine.dsml.calls import ParsedCall

__all__ = [
    "AnswerText",
    "ArgumentText",
    "CallFinished",
    "CallStarted",
    "ParseEvent",
    "Parsed",
    "ThinkingText",
]


@dataclass(frozen=True)
class ThinkingText:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True)
class AnswerText:
    """More of the answer; never the blank line or `<` of a block that follows."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """The `index`-th call of this turn names its tool. It must not run before the turn is parsed:
    a defect further on rejects all calls of the turn."""

    index: int
    name: str


@dataclass(frozen=True)
class ArgumentText:
    """More of an argument as it is written: raw text of a string, JSON text of anything else."""

    index: int
    name: str
    text: str


@dataclass(frozen=True)
class CallFinished:
    """The call is complete."""

    index: int
    call: ParsedCall


ParseEvent = ThinkingText | AnswerText | CallStarted | ArgumentText | CallFinished


@dataclass(frozen=True)
class Parsed:
    """A model's turn, parsed to its end.

    `error` names the defect that rejects the turn's calls, `detail` says it in a sentence for the
    model; `calls` is empty then, and `partial` is the call that was being written, with the
    arguments that were complete. `repaired` names the first deviation that was read anyway.
    `in_thinking`: the calls stand inside the reasoning. `remaining` are the events of text that
    was held back when the ids ended.
    """

    reasoning: str
    content: str
    calls: tuple[ParsedCall, ...] = ()
    error: str | None = None
    detail: str | None = None
    repaired: str | None = None
    in_thinking: bool = False
    partial: ParsedCall | None = None
    remaining: tuple[ParseEvent, ...] = ()
