"""Where a transcript stands that nobody stands in any more: which of its ids are whole, and what
they owe before anybody else can speak. In: ids from the token log. Out: a `Tail`, just as an
interrupted step leaves it, and the events of a step that never came to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from ds4_agent.agent import events as ev
from ds4_agent.agent.replay import STOPPED
from ds4_agent.agent.steps import Tail, closing_of
from ds4_agent.engine.dsml.parse import (
    AnswerText,
    ArgumentText,
    CallFinished,
    CallStarted,
    Parsed,
    ParseEvent,
    Parser,
    ThinkingText,
)
from ds4_agent.engine.dsml.segments import ASSISTANT, END_THINK, EOS, THINK

if TYPE_CHECKING:
    from ds4_agent.engine.dsml.tokenizer import Tokenizer
    from ds4_agent.sessions.saved import Run

__all__ = ["Owed", "owed", "whole_length"]

SAMPLED = ("sampled", "forced")
UNFINISHED = "Error: the agent was stopped before this call was complete; nothing was run"


@dataclass(frozen=True)
class Owed:
    """`events` show the model's last step as far as it came."""

    tail: Tail
    events: tuple[ev.Event, ...] = ()


def whole_length(runs: Sequence[Run], tokenizer: Tokenizer) -> int:
    """How many of these ids can be gone on from. A prompt is recorded in several lines; where the
    process was killed between them, the part is not counted: the model never read it."""
    written: list[Run] = []
    for run in reversed(runs):
        if run.kind in SAMPLED:
            break
        written.insert(0, run)
    ids = [(run.at + i, token_id) for run in written for i, token_id in enumerate(run.ids)]
    header = tokenizer.control(ASSISTANT)
    ends = (tokenizer.control(THINK), tokenizer.control(END_THINK))
    for (_, first), (place, second) in zip(reversed(ids[:-1]), reversed(ids), strict=False):
        if first == header and second in ends:
            return place + 1
    if written:
        return written[0].at
    return runs[-1].end if runs else 0


def owed(
    runs: Sequence[Run],
    tokenizer: Tokenizer,
    schemas: Mapping[str, Mapping[str, Any]] | None,
    answers: Callable[[int], Sequence[str | None]],
) -> Owed:
    """What the ids of `runs`, which are whole, owe. `schemas` are the tools the model knew;
    `answers(position)` gives what the calls of the step that ended there were answered, None for
    those that were not."""
    if not runs:
        return Owed(Tail())
    at = len(runs)
    while at and runs[at - 1].kind in SAMPLED:
        at -= 1
    if not at:  # a log that begins in the middle; there is nothing to close
        return Owed(Tail())
    sampled = [token_id for run in runs[at:] for token_id in run.ids]
    thinking = runs[at - 1].ids[-1] == tokenizer.control(THINK)
    parser = Parser(tokenizer, thinking=thinking, schemas=schemas)
    seen = [event for token_id in sampled for event in parser.feed(token_id)]
    parsed = parser.finish("stop" if parser.stopped else "length")
    events = _shown([*seen, *parsed.remaining])
    has_begun = any(isinstance(event, CallStarted) for event in seen)
    has_ended = bool(sampled) and sampled[-1] == tokenizer.control(EOS)
    is_thinking = parsed.in_thinking or parsed.error == "truncated_reasoning"
    if not parser.stopped:
        is_cut = not is_thinking and (has_begun or bool(parsed.error))
        closing = closing_of(is_thinking or (thinking and not sampled), has_ended)
        return Owed(Tail(closing, (UNFINISHED,) if is_cut else ()), events)
    told = list(answers(runs[-1].end))
    results = _results(parsed, told)
    return Owed(Tail(closing_of(is_thinking, has_ended), results), events)


def _results(parsed: Parsed, told: Sequence[str | None]) -> tuple[str, ...]:
    if parsed.error or parsed.in_thinking:
        why = parsed.detail or parsed.error or "calls are not allowed inside <think></think>"
        return (told[0] if told and told[0] else f"Error: {why}; nothing was run",)
    padded = [*told, *[None] * len(parsed.calls)]
    return tuple(answer or STOPPED for answer, _ in zip(padded, parsed.calls, strict=False))


def _shown(seen: Sequence[ParseEvent]) -> tuple[ev.Event, ...]:
    """The parser's events as the run's, for a call that never ran."""
    events: list[ev.Event] = []
    ids: dict[int, str] = {}
    numbers = count(1)
    for event in seen:
        match event:
            case ThinkingText(text):
                events.append(ev.ThinkingDelta(text))
            case AnswerText(text):
                events.append(ev.TextDelta(text))
            case CallStarted(index, name):
                ids[index] = f"stopped_{next(numbers)}"
                events.append(ev.CallStarted(ids[index], name))
            case ArgumentText(index, name, text):
                events.append(ev.CallArgument(ids[index], name, text))
            case CallFinished(index, call):
                events.append(ev.CallReady(ids[index], call.name, call.arguments))
    return (*events, ev.StepFinished(ev.Usage(), 0, 0, 0.0)) if events else ()
