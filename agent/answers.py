"""The answers to all calls of one step: one call after the other, sub-agents side by side.

In: the calls, in the order they were written. Out: the events of each, then its answer. Whatever
breaks in, every call has an answer: that nobody got to it, or that it may be half done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from ds4_agent.agent.calls import TASK, Answer, CallEvent, CallRunner, interrupted
from ds4_agent.agent.events import CallFinished, CallReady
from ds4_agent.agent.threads import streamed

__all__ = ["TOGETHER", "Answers", "answer_all"]

# Sub-agents at work at the same time; more wait for one of them to end.
TOGETHER = 8


class Answers:
    """The answers of a step as they come. `circle`: see `calls.Answer`."""

    def __init__(self, calls: Sequence[CallReady]) -> None:
        self.calls = tuple(calls)
        self.circle = ""
        self._known = {call.id: interrupted(call, has_begun=False) for call in calls}
        self._given: set[str] = set()

    @property
    def results(self) -> tuple[str, ...]:
        """What the model reads, in the order of its calls."""
        return tuple(self._known[call.id].content for call in self.calls)

    def given(self, call: CallReady) -> str | None:
        """What the call was answered, None where it is not yet."""
        return self._known[call.id].content if call.id in self._given else None

    def begin(self, call: CallReady) -> None:
        """From here on the call may be half done."""
        self._known[call.id] = interrupted(call, has_begun=True)

    def end(self, call: CallReady, answer: Answer) -> CallFinished:
        self._known[call.id] = answer.finished
        self._given.add(call.id)
        self.circle = self.circle or answer.circle
        return answer.finished

    def left_out(self, call: CallReady) -> CallFinished:
        """The answer to a call nobody gets to."""
        return self._known[call.id]


Told = CallEvent | CallFinished


def answer_all(
    runner: CallRunner, answers: Answers, cancel: threading.Event
) -> Generator[Told, None, None]:
    """Answer every call, filling `answers`. Calls of `task` next to each other run together; an
    interrupt, and a call that goes round in circles, leave out those that come after."""
    for is_task, group in groupby(answers.calls, key=lambda call: call.name == TASK):
        calls = tuple(group)
        if is_task and len(calls) > 1 and runner.tasks is not None:
            yield from _together(runner, answers, calls, cancel)
            continue
        for call in calls:
            yield from _one(runner, answers, call, cancel)


def _one(
    runner: CallRunner, answers: Answers, call: CallReady, cancel: threading.Event
) -> Generator[Told, None, None]:
    if cancel.is_set() or answers.circle:
        yield answers.left_out(call)
        return
    answers.begin(call)
    answer = yield from runner.answer(call)
    yield answers.end(call, answer)


def _together(
    runner: CallRunner,
    answers: Answers,
    calls: Sequence[CallReady],
    cancel: threading.Event,
) -> Generator[Told, None, None]:
    def body(call: CallReady, emit: Callable[[Told], None]) -> None:
        try:
            for event in _one(runner, answers, call, cancel):
                emit(event)
        except BaseException:
            cancel.set()  # the turn ends with the error, and the others with it
            raise

    def work(emit: Callable[[Told], None]) -> None:
        with (
            runner.shared.batching(TOGETHER),
            ThreadPoolExecutor(TOGETHER, thread_name_prefix="ds4-task") as pool,
        ):
            begun = [pool.submit(body, call, emit) for call in calls]
        for future in begun:
            future.result()

    yield from streamed(work, cancel, "ds4-tasks")
