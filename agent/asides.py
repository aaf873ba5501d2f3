"""A question beside the work (`/btw`): answered from a fork, of which nothing stays.

In: the agent between two turns, and the question. Out: the answer as
it is written. Calls no tool; the conversation never learns that it was asked.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ds4_agent.agent import events as ev
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.steering import spoken
from ds4_agent.agent.steps import Step, Tail, run_step
from ds4_agent.engine.dsml.encode import assistant_header, tool_result_segments, user_segments
from ds4_agent.engine.dsml.segments import Segment
from ds4_agent.engine.errors import Cancelled

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.subagents import Live

__all__ = ["ask_aside"]

LEAST_ANSWER = 64  # tokens: with less room there is no use in asking
_ASK = "{question}\n\n(Asked in between: answer from what you know now, and call no tool.)"
NO_ROOM = "the context is too full for a question in between; /compact makes room"
NO_ANSWER = "the model gave no answer"
ASK = "a question in between calls no tool, so ask it as a prompt"


def ask_aside(agent: Agent, question: str) -> Iterator[ev.Event]:
    """Between runs. Yields the answer, then the end of its step, with the conversation's own
    length. Raises UsageError where there is no conversation yet, and EngineError."""
    if not agent.context_tokens:
        raise UsageError("there is no conversation yet to ask about")
    try:
        yield from _answer(agent.forked(), question, agent.runner.cancel)
    except Cancelled:
        yield ev.Notice("interrupted")


def _answer(live: Live, question: str, cancel: threading.Event) -> Generator[ev.Event, None, None]:
    fork, model = live.fork(), live.model
    length = fork.length
    asked = _asked(live.tail, "\n\n".join(filter(None, (live.opening, question))))
    encoded = fork.encode([*asked, *assistant_header(model.thinking)])
    room = fork.limit - length - len(encoded)
    if room < LEAST_ANSWER:
        yield ev.Notice(NO_ROOM)
        return
    step = Step()
    for event in run_step(
        fork,
        replace(model, grammar=None),
        step,
        encoded,
        max_tokens=min(room, model.step_limit),
        new_call_id=lambda: "aside",
        cancel=cancel,
    ):
        if isinstance(event, ev.PrefillProgressed | ev.ThinkingDelta | ev.TextDelta):
            yield event
    rate = step.usage.output_tokens / max(step.seconds, 1e-9)
    yield ev.StepFinished(step.usage, length, fork.limit, rate)
    if not step.text.strip():
        called = f" but wanted to call {step.started[0][1]}; {ASK}" if step.started else ""
        yield ev.Notice(NO_ANSWER + called)


def _asked(tail: Tail, question: str) -> Sequence[Segment]:
    text = _ASK.format(question=question)
    if tail.results:  # calls still waiting for their answer share the user's turn
        return [*tail.closing, *tool_result_segments(tail.results), *spoken([text])]
    return [*tail.closing, *user_segments(text)]
