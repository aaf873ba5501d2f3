"""Compaction: a conversation that nears the end of its context goes on in a new branch, which
begins with the model's own summary of it. In: a fork of the live transcript, so that nothing of it
changes. Out: the summary, and the words the new branch begins with. Never calls a tool.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ds4_agent.agent import events as ev
from ds4_agent.agent.steps import Model, Step, run_step
from ds4_agent.engine.dsml.encode import assistant_header, tool_result_segments, user_segments
from ds4_agent.engine.dsml.segments import Segment, data, template

if TYPE_CHECKING:
    from ds4_agent.agent.transcript import Transcript

__all__ = ["LEAST_SUMMARY", "compaction_room", "continued", "opening", "summarise"]

# The room kept free for a summary: an eighth of the context, which is enough for any, at most so
# many tokens. It is never given to an ordinary step, so a summary always fits.
ROOM_PART = 8
MOST_ROOM = 12_288
# With less room than this a summary is not worth its loss.
LEAST_SUMMARY = 64

_ASK = (
    "The context is nearly full. Write a summary from which another instance of you goes on alone: "
    "what the user wants, in the user's own words; what was done, with the names of files, "
    "functions and commands and what they showed; what was decided and why; what is left to do. "
    "Call no tool."
)
_BEGIN = "This conversation goes on from a summary of its beginning, which you wrote:"
_UNDER_WAY = "The user's request, on which you are still at work:"
_RESULTS = "The results of your last calls:"


def compaction_room(limit: int) -> int:
    """Tokens of a context of `limit` that only a summary may use."""
    return min(limit // ROOM_PART, MOST_ROOM)


def summarise(
    fork: Transcript,
    model: Model,
    closing: Sequence[Segment],
    results: Sequence[str],
    reserve: int,
    cancel: threading.Event,
) -> Generator[ev.PrefillProgressed, None, tuple[str, ev.Usage]]:
    """(the summary, "" where there is none; what it cost). `closing` ends what the fork's last turn
    left open, `results` answer its calls as far as they fit. Raises Cancelled and EngineError.
    """
    plain = replace(model, schemas={}, grammar=None)
    header = assistant_header(model.thinking)
    asked = [*closing, *user_segments(_ASK), *header]
    if results:
        answered = [*closing, *_answers(results), *header]
        if fork.length + len(fork.encode(answered)) + reserve + LEAST_SUMMARY <= fork.limit:
            asked = answered
        else:
            left_out = ["the result was left out here; you will see it"] * len(results)
            asked = [*closing, *_answers(left_out), *header]
    encoded = fork.encode(asked)
    room = fork.limit - fork.length - len(encoded) - reserve
    step = Step()
    if room < LEAST_SUMMARY:
        return "", step.usage
    count = iter(range(1, 1000))
    for event in run_step(
        fork,
        plain,
        step,
        encoded,
        max_tokens=min(room, model.step_limit),
        new_call_id=lambda: f"summary_{next(count)}",
        cancel=cancel,
    ):
        if isinstance(event, ev.PrefillProgressed):
            yield event
    return step.text.strip(), step.usage


def continued(
    summary: str, prompt: str, results: Sequence[str], *, is_under_way: bool
) -> list[Segment]:
    """The first user turn of the new branch: the summary, then the prompt, and where the model is
    at work on it already, the results it waits for."""
    parts = [_BEGIN, summary]
    if is_under_way:
        parts += [_UNDER_WAY, prompt]
        if results:
            parts += [_RESULTS, *results]
    else:
        parts.append(prompt)
    return user_segments("\n\n".join(parts))


def opening(summary: str, results: Sequence[str]) -> str:
    """What stands before the first prompt of a new branch that was asked for between two prompts:
    the summary, and the results that an interrupt kept from the model."""
    told = [_RESULTS, *results] if results else []
    return "\n\n".join([_BEGIN, summary, *told])


def _answers(results: Sequence[str]) -> list[Segment]:
    return [*tool_result_segments(results), template("\n\n"), data(_ASK)]
