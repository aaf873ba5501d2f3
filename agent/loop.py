"""The agent: a prompt in, events out, until the model ends its turn or something stops it.

`Agent.run(prompt)` is a synchronous generator that works in the caller's thread; `interrupt()` and
`steer(text)` may be called from any other. The transcript is append-only: what was sampled is the
history, results are appended as data. Whatever stops a run, the next `run` continues from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ds4_agent.agent import events as ev
from ds4_agent.agent.answers import Answers, answer_all
from ds4_agent.agent.calls import CallRunner
from ds4_agent.agent.compaction import compaction_room, continued, opening, summarise
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.limits import Limits, time_limit, why_it_ended
from ds4_agent.agent.replay import Story
from ds4_agent.agent.rewind import Past, Return, Rewound
from ds4_agent.agent.steering import Steering, spoken
from ds4_agent.agent.steps import LENGTH_ERROR, Model, Step, Tail, run_step
from ds4_agent.agent.subagents import Live
from ds4_agent.agent.transcript import Place, Transcript
from ds4_agent.agent.turn import End, Turn, why_it_stops
from ds4_agent.agent.undo import NOT_SAVED
from ds4_agent.engine.dsml.encode import (
    assistant_header,
    reminder_segments,
    tool_result_segments,
    user_segments,
)
from ds4_agent.engine.dsml.segments import Segment
from ds4_agent.engine.errors import Cancelled, ContextFullError, EngineError

if TYPE_CHECKING:
    from ds4_agent.agent.approval import Mode
    from ds4_agent.agent.identity import Identity, Retooled
    from ds4_agent.agent.record import Recorder
    from ds4_agent.agent.resume import Resumed
    from ds4_agent.agent.undo import TurnUndone, Undo
    from ds4_agent.engine.api import Context

__all__ = ["Agent"]

# Tokens of the context no step may use, so that an interrupted call can always be closed and the
# next prompt can always say something.
RESERVE = 64
# What a step may use even of the room that is kept for a summary.
LEAST_STEP = 64
_TOO_LARGE = "Error: the result does not fit into the context and was left out"


class Agent:
    """One session with one model. Not for two threads at once, except `interrupt` and `steer`."""

    def __init__(
        self,
        identity: Identity,
        model: Model,
        transcript: Transcript,
        runner: CallRunner,
        recorder: Recorder,
        *,
        prefix: Sequence[Segment],
        limits: Limits,
        new_context: Callable[[], Context],
        undo: Undo | None = None,
        notices: Sequence[str] = (),
        retool: Callable[[], Retooled | None] = lambda: None,
        resumed: Resumed | None = None,
        announcement: str = "",
        tail: Tail | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """`prefix` is the session's prompt up to the first user turn; `new_context` gives an empty
        context of the same engine; `undo` None: nothing is saved for one; `notices` are told at the
        start of the first run; `retool` is asked before each turn; `resumed` is the session that
        goes on, and `announcement` what its model must read about its tools; `tail` is what a
        conversation owes that is no new one; `on_close` frees what the session holds."""
        self.identity = identity
        self.limits = limits
        self._model = model
        self._transcript = transcript
        self._runner = runner
        self._recorder = recorder
        self._undo = undo
        # What the model is told before its next user turn: undos, and what else it must know.
        self._undone: dict[int, str] = {}
        self._reminders = [*resumed.reminders] if resumed else []
        self._notices = tuple(notices)
        self._retool = retool
        self._announcement = announcement  # what the model has yet to read about its tools
        self._opening = ""  # the summary that the next prompt of a new branch begins with
        self._steering = Steering()
        self._on_close = on_close
        self._cancel = runner.cancel
        self._stop: ev.TurnReason = "interrupted"  # why `cancel` is set
        self._prefix, self._new_context = tuple(prefix), new_context
        self._resumed = resumed
        self._tail = tail or (resumed.tail if resumed else Tail(closing=self._prefix))
        self._past, self._calls = (resumed.past, resumed.calls) if resumed else (Past(), 0)
        self._room = compaction_room(transcript.limit)

    @property
    def mode(self) -> Mode:
        """The permission mode; may be changed at any time and holds from the next call on."""
        return self._runner.approvals.mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._runner.approvals.mode = mode

    @property
    def context_tokens(self) -> int:
        """Tokens in the context now."""
        return self._transcript.length

    @property
    def context_limit(self) -> int:
        return self._transcript.limit

    def replay(self) -> tuple[Story, tuple[ev.Event, ...]]:
        """What a screen showed of the session that goes on, and what is said now; once."""
        if (resumed := self._resumed) is None:
            return Story(), ()
        self._notices = tuple(text for text in self._notices if text != resumed.notice)
        return resumed.story, (ev.Notice(resumed.notice),)

    def slowness(self) -> tuple[str, str]:
        """See `Transcript.slowness`."""
        return self._transcript.slowness()

    def save(self) -> None:
        """Hand every record to the operating system. Thread-safe enough for a last moment."""
        self._transcript.flush()

    def close(self) -> None:
        """End the session: its processes, its records, its model. Takes under a second."""
        self._on_close()

    def interrupt(self) -> None:
        """Stop the run under way as soon as possible. Thread-safe; nothing when none is."""
        self._cancel.set()

    def steer(self, text: str) -> None:
        """Say something to the run under way: the model reads it with the results of its next
        calls (`Steered`). Thread-safe. What a run ends without having read waits."""
        self._steering.add(text)

    def withdraw(self) -> tuple[str, ...]:
        """Take back what `steer` said and the model has not read, oldest first. Thread-safe."""
        return self._steering.take()

    def compact(self) -> Iterator[ev.Event]:
        """Between runs: go on in a new branch that begins with a summary of this one. Yields what
        happens; an interrupt changes nothing.

        Raises UsageError where there is no conversation yet, and EngineError.
        """
        if not self._transcript.length:
            raise UsageError("there is nothing to summarise yet")
        return self._recorded(self._compact_now())

    def uncompact(self) -> bool:
        """Between runs: back to the conversation before the last compaction, which is then not
        compacted again until it is entirely full. False where there is none."""
        back = self._past.uncompact()
        if back is None:
            return False
        self._transcript.go_back(back.place)
        self._recorder.branched(self._transcript.branch)
        self._tail = back.tail
        self._opening = ""
        self._room = 0
        return True

    def forked(self) -> Live:
        """Between runs: what forks of the conversation begin from."""
        self._cancel.clear()
        opening = "\n\n".join(filter(None, (self._opening, self._announcement)))
        return replace(self._live(Turn(), Answers(())), opening=opening)

    def take_over(self, apply: Callable[[], tuple[str, str]]) -> str:
        """Between runs: change files, as a turn of its own for undo. `apply` does it and says what
        the user is told, which is returned, and what the model is told before the next prompt."""
        if self._undo is not None:
            self._undo.snapshots.new_turn()
        said, told = apply()
        self._reminders.append(told)
        self._recorder.reminder(told)
        return said

    @property
    def runner(self) -> CallRunner:
        """Who answers the calls of this session."""
        return self._runner

    @property
    def turns(self) -> tuple[str, ...]:
        """The prompts of the conversation, oldest first: where `rewind` can go back to."""
        return tuple(mark.prompt for mark in self._past.marks)

    @property
    def context(self) -> Context:
        """A fork of the context as it is now."""
        return self._transcript.place.context

    def rewind(self, turn: int, *, with_files: bool = False) -> Rewound:
        """Between runs: back to where the `turn`-th prompt (from 1) was not yet asked; computes
        nothing. `with_files` takes back what that turn and those after it did to files.

        Raises UsageError and OutputError.
        """
        if with_files and self._undo is None:
            raise UsageError(NOT_SAVED)
        mark, back, unread = self._past.rewind(turn)
        undone = None
        try:
            if self._undo is not None and with_files:
                undone = self._undo.turns_after(mark.changes)
        finally:  # the conversation goes back also where a file could not be written down
            self._transcript.begin(back.place, "rewind")
            self._tail, self._opening = back.tail, back.opening
            self._room = compaction_room(self._transcript.limit)
            self._recorder.rewound(self._transcript.branch, turn, Rewound(mark.prompt, undone))
        self._announcement = "\n\n".join(filter(None, (*unread, self._announcement)))
        left = self._undo.left_by_rewind(mark.changes) if self._undo and not with_files else ""
        if left:
            self._reminders.append(left)
            self._recorder.reminder(left)
        return Rewound(mark.prompt, undone)

    def undo(self) -> TurnUndone:
        """Take back what the last turn did to files; the model is told with the next prompt.

        Only while no run is under way. Raises UsageError when there is nothing to undo.
        """
        if self._undo is None:
            raise UsageError(NOT_SAVED)
        undone = self._undo.last_turn()
        self._recorder.undone(undone)
        return undone

    def run(self, prompt: str) -> Iterator[ev.Event]:
        """Carry out one prompt. Always ends with TurnEnded, unless it raises.

        Raises ContextFullError when the prompt does not fit (nothing is changed then) and
        EngineError when the engine fails (the next prompt can be tried).
        """
        return self._recorded(self._run(prompt))

    def _recorded(self, events: Iterator[ev.Event]) -> Iterator[ev.Event]:
        try:
            for event in events:
                self._recorder.record(event)
                yield event
                yield from map(ev.Notice, self._recorder.new_failures())
        except EngineError as error:
            self._recorder.failed(str(error))
            raise

    def _run(self, prompt: str) -> Generator[ev.Event, None, None]:
        if not self.identity.task:  # a sub-agent ends with the agent that started it
            self._cancel.clear()
        self._stop = "interrupted"
        self._runner.new_turn()
        if self._undo is not None:
            self._undo.snapshots.new_turn()
            self._undone = self._undo.news()
        turn = Turn()
        began = time.monotonic()
        told = self._use_other_tools()
        self._begin_turn(prompt)
        who = self.identity
        yield ev.RunStarted(who.session_id, prompt, who.model, who.directory, who.tools)
        yield from map(ev.Notice, (*self._notices, *told))
        self._notices = ()
        with time_limit(self.limits.seconds, self._time_is_up):
            try:
                end = yield from self._turn(turn, prompt)
            except Cancelled:
                end = End(self._stop)
            finally:
                self._steering.put_back(turn.steered)
        self._transcript.save("answer")
        detail = end.detail or why_it_ended(end.reason, self.limits, self.context_limit)
        spent = (turn.usage, turn.steps, time.monotonic() - began)
        yield ev.TurnEnded(end.reason, turn.text, *spent, detail, turn.prefill_rate)

    def _begin_turn(self, prompt: str) -> None:
        changes = self._undo.changes if self._undo else 0
        back = Return(self._transcript.place, self._tail, self._opening)
        self._past.begin_turn(prompt, back, changes)
        self._recorder.turn_begins(back.place.branch, self._transcript.length, changes)

    def _use_other_tools(self) -> tuple[str, ...]:
        """Take over tools that changed since the last turn; what the user is told about it. The
        prefix stays as it is: the model reads of them before this prompt."""
        changed = self._retool()
        if changed is None:
            return ()
        self.identity, self._model = changed.identity, changed.model
        self._runner.use_tools(changed.tools)
        self._announcement = "\n\n".join(filter(None, (self._announcement, changed.announcement)))
        return changed.notices

    def _turn(self, turn: Turn, prompt: str) -> Generator[ev.Event, None, End]:
        prompt = "\n\n".join(filter(None, (self._opening, self._announcement, prompt)))
        speech = user_segments(prompt)
        if self._tail.results:  # calls still waiting for their answer share the user's turn
            speech = [*tool_result_segments(self._tail.results), *spoken([prompt])]
        speech = [*self._reminder(), *speech]
        while True:
            segments = [*self._tail.closing, *speech, *assistant_header(self._model.thinking)]
            encoded = self._transcript.encode(segments)
            needed = self._transcript.length + len(encoded) + RESERVE
            if needed + self._room >= self._transcript.limit and self._is_worth_compacting():
                compacted = yield from self._compact(turn, prompt)
                if compacted is not None:
                    speech = [*compacted, *spoken(turn.steered)]
                    continue
            if needed >= self._transcript.limit:
                if turn.steps == 0:
                    raise ContextFullError(needed, self._transcript.limit)
                self._tail = replace(self._tail, results=(_TOO_LARGE,) * len(self._tail.results))
                return End("context")
            step = yield from self._step(turn, encoded)
            if step.ended == "length":
                return self._cut()
            if not step.calls and not step.error:
                return End("end")
            circle = yield from self._answer(turn, step)
            end = self._must_stop(turn, circle)
            if end is not None:
                return end
            turn.steered = self._steering.take()
            speech = [*tool_result_segments(self._tail.results), *spoken(turn.steered)]

    def _is_worth_compacting(self) -> bool:
        """Whether most of the context is conversation, which a summary can stand for."""
        return self._room > 0 and self._transcript.length > self._transcript.limit // 2

    def _compact(self, turn: Turn, prompt: str) -> Generator[ev.Event, None, list[Segment] | None]:
        """Go on in a new branch; its first words. None where no summary could be had: the old
        branch goes on, and is not asked again. Raises Cancelled with nothing changed."""
        before, results = self._transcript.length, self._tail.results
        yield ev.Notice(f"the context is nearly full ({before:,} tokens): summarising it")
        summary, usage = yield from self._summarise()
        turn.usage += usage
        if not summary:
            self._room = 0
            yield ev.Notice("the model wrote no summary; the conversation goes on until it is full")
            return None
        self._branch_off()
        yield ev.Compacted(summary, before)
        goes_on = continued(summary, prompt, results, is_under_way=turn.steps > 0)
        return [*self._reminder(), *goes_on]

    def _compact_now(self) -> Generator[ev.Event, None, None]:
        self._cancel.clear()
        before, results = self._transcript.length, self._tail.results
        try:
            summary, usage = yield from self._summarise()
        except Cancelled:
            yield ev.Notice("interrupted: the conversation stays as it is")
            return
        if not summary:
            yield ev.Notice("the model wrote no summary: the conversation stays as it is")
            return
        self._branch_off()
        self._opening, self._room = opening(summary, results), compaction_room(self.context_limit)
        yield ev.Compacted(summary, before, usage)

    def _summarise(self) -> Generator[ev.Event, None, tuple[str, ev.Usage]]:
        fork, owed = self._transcript.fork(), (self._tail.closing, self._tail.results)
        return (yield from summarise(fork, self._model, *owed, RESERVE, self._cancel))

    def _branch_off(self) -> None:
        self._past.summarise(Return(self._transcript.place, self._tail))
        self._transcript.begin(Place(self._new_context(), self._transcript.branch), "compaction")
        self._recorder.branched(self._transcript.branch)
        self._tail = Tail(closing=self._prefix)
        self._runner.forget()

    def _reminder(self) -> list[Segment]:
        """What the model has not been told yet and must know before the user speaks."""
        told = "\n".join((*self._undone.values(), *self._reminders))
        return reminder_segments(told) if told else []

    def _step(
        self, turn: Turn, encoded: Sequence[tuple[int, str]]
    ) -> Generator[ev.Event, None, Step]:
        """One model step over what is new. Raises Cancelled with the step closed."""
        yield from map(ev.Steered, turn.steered)
        turn.steered = ()
        turn.steps += 1
        yield ev.StepStarted(turn.steps, len(encoded))
        room = self._transcript.limit - self._transcript.length - len(encoded) - RESERVE
        room = max(room - self._room, min(room, LEAST_STEP))
        before = self._transcript.length
        step = Step()
        try:
            yield from run_step(
                self._transcript,
                self._model,
                step,
                encoded,
                max_tokens=min(room, self._model.step_limit, self._tokens_left(turn)),
                new_call_id=self.new_call_id,
                cancel=self._cancel,
            )
        except Cancelled:
            yield from self._close(step)
            raise
        finally:
            if self._transcript.length > before:  # else what was owed still is
                self._tail = step.tail
                if self._announcement:
                    self._recorder.tools(self._model.schemas)
                    self._past.announced(self._announcement)
                self._announcement = self._opening = ""
                self._tell_of_undos()
            turn.took(step.text, step.usage, step.prefill_rate)
        yield from self._close(step)
        return step

    def _tell_of_undos(self) -> None:
        """The model has what `_reminder` said."""
        if self._undo is not None and self._undone:
            self._undo.snapshots.told(self._undone)
        self._undone, self._reminders = {}, []

    def _close(self, step: Step) -> Generator[ev.Event, None, None]:
        """The events that end a step, and with it every call that was begun and is not whole."""
        rate = step.usage.output_tokens / max(step.seconds, 1e-9)
        used = self._transcript.length
        yield ev.StepFinished(step.usage, used, self._transcript.limit, rate)
        whole = {call.id for call in step.calls}
        problem = f"Error: {step.error}; nothing was run" if step.error else LENGTH_ERROR
        text = step.tail.results[0] if step.tail.results else problem
        for call_id, name in step.started:
            if call_id not in whole:
                yield ev.CallFinished(call_id, name, text, is_error=True, ran=False)

    def _answer(self, turn: Turn, step: Step) -> Generator[ev.Event, None, str]:
        """Answer every call of a step. Afterwards the results stand in the tail.

        Returns why the turn should stop because the model goes round in circles, or "".
        """
        turn.malformed = turn.malformed + 1 if step.error else 0
        if step.error:
            self._tail = replace(self._tail, results=(f"Error: {step.error}; nothing was run",))
            yield ev.Notice(f"the model wrote a call that cannot be read: {step.error}")
            return ""
        answers = Answers(step.calls)
        self._runner.begin_step(self._live(turn, answers))
        try:
            for event in answer_all(self._runner, answers, self._cancel):
                if isinstance(event, ev.TaskEvent) and isinstance(event.event, ev.TurnEnded):
                    turn.usage += event.event.usage
                yield event
        finally:
            self._tail = replace(self._tail, results=answers.results)
        return answers.circle

    def _live(self, turn: Turn, answers: Answers) -> Live:
        left = None if self.limits.max_tokens is None else self._tokens_left(turn)
        own = (self._tail, self.identity, self._model, self._runner.tools)
        return Live(self._transcript.fork, *own, answers, left)

    def _must_stop(self, turn: Turn, circle: str) -> End | None:
        """Whether the turn ends although the model wanted to go on. Its calls are answered, and
        the answers are given with the next prompt."""
        if self._cancel.is_set():
            return End(self._stop)
        return why_it_stops(turn, circle, self.limits, self._tokens_left(turn))

    def _cut(self) -> End:
        """Why a step ended without the model's own end."""
        room = self._transcript.limit - self._transcript.length
        return End("context" if room <= RESERVE + self._room else "max_tokens")

    def _tokens_left(self, turn: Turn) -> int:
        limit = self.limits.max_tokens
        return self._model.step_limit if limit is None else limit - turn.usage.output_tokens

    def new_call_id(self) -> str:
        """A name no call of the session has."""
        self._calls += 1
        task = self.identity.task
        return f"{task}.{self._calls}" if task else f"call_{self._calls:02d}"

    def _time_is_up(self) -> None:
        if not self._cancel.is_set():
            self._stop = "time_limit"
            self._cancel.set()
