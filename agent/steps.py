"""One model step: feed what is new, sample, and read the ids as events.

In: what is new, encoded, and limits. Out: events, and a `Step`: what was written, how it ended.
However a step ends, in order or not, `Tail` says what must stand in the transcript before anybody
else can speak: an interrupted step leaves ids the model understands, and loses none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ds4_agent.agent import events as ev
from ds4_agent.agent.threads import streamed
from ds4_agent.agent.transcript import Transcript
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
from ds4_agent.engine.dsml.segments import END_THINK, EOS, Segment, control

if TYPE_CHECKING:
    from ds4_agent.engine.api import PrefillProgress, Sampling
    from ds4_agent.engine.dsml.grammar import Grammar

__all__ = ["Ending", "Model", "Step", "StepEvent", "Tail", "closing_of", "run_step"]

Ending = Literal["stop", "length"]
StepEvent = (
    ev.PrefillProgressed
    | ev.ThinkingDelta
    | ev.TextDelta
    | ev.CallStarted
    | ev.CallArgument
    | ev.CallReady
)
LENGTH_ERROR = "Error: the answer was cut off before this call was complete; nothing was run"
INTERRUPT_ERROR = "Error: the user interrupted before this call was complete; nothing was run"


@dataclass(frozen=True)
class Tail:
    """What an unfinished step owes the transcript: `closing` ids that end the model's turn, then
    `results` that answer calls, in the next user turn."""

    closing: tuple[Segment, ...] = ()
    results: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """How a session samples. `schemas` by tool name; `grammar` None: unconstrained."""

    thinking: bool
    sampling: Sampling
    schemas: Mapping[str, Mapping[str, Any]]
    grammar: Grammar | None
    step_limit: int  # output tokens of one step


@dataclass
class Step:
    """A step under way, then finished. `calls` are whole and in order, none if `error` is set."""

    ended: Ending = "stop"
    parsed: Parsed | None = None
    calls: tuple[ev.CallReady, ...] = ()
    started: list[tuple[str, str]] = field(default_factory=list)  # (id, name) of each call begun
    usage: ev.Usage = field(default_factory=ev.Usage)
    seconds: float = 0.0  # of sampling
    prefill_rate: float = 0.0  # tokens a second
    tail: Tail = field(default_factory=Tail)

    @property
    def error(self) -> str:
        """What is wrong with the calls, "" for nothing."""
        if self.parsed is None:
            return ""
        if self.parsed.in_thinking and not self.parsed.error:
            return "calls are not allowed inside <think></think>; end the thinking first"
        return self.parsed.detail or self.parsed.error or ""

    @property
    def text(self) -> str:
        return self.parsed.content if self.parsed is not None else ""


def run_step(
    transcript: Transcript,
    model: Model,
    step: Step,
    encoded: Sequence[tuple[int, str]],
    *,
    max_tokens: int,
    new_call_id: Callable[[], str],
    cancel: threading.Event,
) -> Generator[StepEvent, None, None]:
    """Feed a prompt, which ends with the assistant header, and sample until the model stops.

    Fills `step`. Raises Cancelled, ContextFullError (nothing appended) and EngineError; `step.tail`
    is right in every case but ContextFullError.
    """
    before = transcript.length
    try:
        yield from _prefill(transcript, step, encoded, cancel)
        transcript.save("prompt")
        yield from _sample(transcript, model, step, max_tokens, new_call_id, cancel)
    except BaseException:
        # Also when the consumer just left (GeneratorExit) or the engine failed.
        if step.parsed is None and transcript.length > before:
            step.tail = Tail(closing_of(model.thinking, has_ended=False))
        raise


def _prefill(
    transcript: Transcript,
    step: Step,
    encoded: Sequence[tuple[int, str]],
    cancel: threading.Event,
) -> Generator[ev.PrefillProgressed, None, None]:
    before = transcript.length

    def work(emit: Callable[[PrefillProgress], None]) -> None:
        transcript.append(encoded, on_progress=emit, cancel=cancel)

    done = restored = total = 0

    def translated(progress: PrefillProgress) -> ev.PrefillProgressed:
        nonlocal done, restored, total
        done, restored, total = progress.done, progress.restored, progress.total
        step.prefill_rate = progress.tokens_per_second
        return ev.PrefillProgressed(
            done, total, progress.reused, progress.tokens_per_second, restored
        )

    try:
        yield from map(translated, streamed(work, cancel, "ds4-prefill"))
    finally:
        appended = transcript.length - before
        step.usage += ev.Usage(
            # More than is appended where a session goes on, or the last step's end is computed now.
            input_tokens=max(appended, restored + total),
            cached_tokens=restored,
            prefilled_tokens=done,
        )


def _sample(
    transcript: Transcript,
    model: Model,
    step: Step,
    max_tokens: int,
    new_call_id: Callable[[], str],
    cancel: threading.Event,
) -> Generator[StepEvent, None, None]:
    parser = Parser(transcript.tokenizer, thinking=model.thinking, schemas=model.schemas)
    end_of_turn = transcript.tokenizer.control(EOS)
    ids = _CallIds(new_call_id, step)
    began = time.monotonic()
    has_ended = False
    count = forced = drafted = accepted = 0
    try:
        with closing(
            transcript.sample(
                sampling=model.sampling,
                grammar=model.grammar.start(model.thinking) if model.grammar else None,
                max_tokens=max_tokens,
                cancel=cancel,
            )
        ) as tokens:
            for token in tokens:
                count += 1
                forced += token.forced
                drafted += token.drafted
                accepted += token.accepted
                has_ended = token.id == end_of_turn
                for event in parser.feed(token.id):
                    yield from ids.translate(event)
                if parser.stopped:
                    break
    finally:
        step.seconds = time.monotonic() - began
        step.usage += ev.Usage(
            output_tokens=count,
            forced_tokens=forced,
            drafted_tokens=drafted,
            accepted_tokens=accepted,
        )
        step.ended = "stop" if parser.stopped else "length"
        step.parsed = parser.finish(step.ended)
        is_thinking = step.parsed.in_thinking or step.parsed.error == "truncated_reasoning"
        is_cut = step.ended == "length" and not is_thinking and bool(step.started or step.error)
        results = (INTERRUPT_ERROR,) if is_cut else ()
        step.tail = Tail(closing_of(is_thinking, has_ended), results)
    if is_cut:  # by a limit, then: an interrupt has raised above
        step.tail = Tail(step.tail.closing, (LENGTH_ERROR,))
    for event in step.parsed.remaining:
        yield from ids.translate(event)
    if not step.error and step.ended == "stop":
        step.calls = ids.ready(step.parsed)
        yield from step.calls


def closing_of(in_thinking: bool, has_ended: bool) -> tuple[Segment, ...]:
    """What ends the model's turn where it stopped."""
    if has_ended:
        return ()
    return (control(END_THINK), control(EOS)) if in_thinking else (control(EOS),)


class _CallIds:
    """Gives the calls of one step their ids and turns parse events into the run's events."""

    def __init__(self, new_call_id: Callable[[], str], step: Step) -> None:
        self._new = new_call_id
        self._step = step
        self._ids: dict[int, str] = {}

    def translate(self, event: ParseEvent) -> Generator[StepEvent, None, None]:
        if isinstance(event, ThinkingText):
            yield ev.ThinkingDelta(event.text)
        elif isinstance(event, AnswerText):
            yield ev.TextDelta(event.text)
        elif isinstance(event, CallStarted):
            yield ev.CallStarted(self._id(event.index, event.name), event.name)
        elif isinstance(event, ArgumentText):
            yield ev.CallArgument(self._ids[event.index], event.name, event.text)
        else:
            assert isinstance(event, CallFinished)  # told again, whole, by `ready`

    def ready(self, parsed: Parsed) -> tuple[ev.CallReady, ...]:
        return tuple(
            ev.CallReady(self._id(index, call.name), call.name, call.arguments)
            for index, call in enumerate(parsed.calls)
        )

    def _id(self, index: int, name: str) -> str:
        if index not in self._ids:
            self._ids[index] = self._new()
            self._step.started.append((self._ids[index], name))
        return self._ids[index]
