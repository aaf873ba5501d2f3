"""A session taken up again: what its logs say becomes a context, what that owes, and a past.

In: a session's directory, and the engine that goes on with it. Out: `Resumed`, which an `Agent` is
built from. Computes nothing: the context holds the old ids, and the first prompt restores or
computes their state. Ids of another model, or with a hole in them, are not used; the conversation
is told to the model as text instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.owed import Owed, owed, whole_length
from ds4_agent.agent.replay import Story
from ds4_agent.agent.rewind import Mark, Past, Return
from ds4_agent.agent.steps import Tail
from ds4_agent.agent.transcript import Place
from ds4_agent.engine.dsml.segments import data
from ds4_agent.sessions.catalogue import fork
from ds4_agent.sessions.errors import SessionError, SessionInUseError
from ds4_agent.sessions.log import EVENTS, SessionLog
from ds4_agent.sessions.saved import Branch, Run, ids_of, read_events, read_tokens
from ds4_agent.sessions.summary import number_of

if TYPE_CHECKING:
    from ds4_agent.agent.choose import Choice
    from ds4_agent.engine.api import Context, Engine
    from ds4_agent.engine.dsml.segments import Segment
    from ds4_agent.sessions.saved import SavedEvents, SavedTokens, SavedTurn

__all__ = ["Resumed", "Saved", "read_session", "resume", "taken_up"]

Schemas = Mapping[str, Mapping[str, Any]]
_CALL = re.compile(r"call_(\d+)")


@dataclass(frozen=True)
class Saved:
    """A session's logs."""

    tokens: SavedTokens
    events: SavedEvents

    @property
    def schemas(self) -> Schemas | None:
        """The tools its model was told of last; None where that is not known."""
        schemas = self.events.last("tools").get("schemas")
        if not isinstance(schemas, list):
            return None
        return {str(schema["name"]): schema for schema in schemas if "name" in schema}


@dataclass(frozen=True)
class Resumed:
    """`first` is what the token log has to say before its next record; `notice` is one line for
    the user; `is_text` where the model is told everything anew, its tools too."""

    place: Place
    next_branch: int
    first: Mapping[str, Any] | None
    tail: Tail
    past: Past
    calls: int
    reminders: tuple[str, ...]
    notice: str
    is_text: bool
    story: Story


def taken_up(choice: Choice) -> tuple[SessionLog, Saved]:
    """The session's log, nobody else's from here on, and what it says. Raises UsageError with
    nothing changed."""
    directory = choice.directory
    if not (directory / EVENTS).is_file():
        raise UsageError(f"there is no session {directory.name}; see ds4-agent sessions list")
    try:
        if choice.forks:
            directory = fork(directory, datetime.now().astimezone())
    except SessionError as error:
        raise UsageError(str(error)) from error
    log = SessionLog(directory)
    try:
        log.lock.acquire()
    except SessionInUseError as error:
        name = directory.name
        raise UsageError(f"{error}; --fork {name} goes on in a copy of it") from error
    except OSError:  # a place that cannot be written: the log says so at its first record
        pass
    try:
        return log, read_session(directory)
    except BaseException:
        log.close()
        raise


def read_session(directory: Path) -> Saved:
    """Raises UsageError where there is no session, or it cannot be read."""
    try:
        saved = Saved(read_tokens(directory), read_events(directory))
    except OSError as error:
        raise UsageError(f"cannot read session {directory.name}: {error.strerror}") from error
    if not saved.events.header and not saved.events.turns:
        raise UsageError(f"there is no session {directory.name}; see ds4-agent sessions list")
    return saved


def resume(
    saved: Saved,
    engine: Engine,
    *,
    prefix: Sequence[Segment],
    thinking: bool,
    directory: str,
    today: str = "",
    warm: Context | None = None,
) -> Resumed:
    """`prefix` is the prompt a new session would begin with; `warm` is a live context that may hold
    the same ids, and is used then. What is new about the `directory` and, if given, the date
    (`2026-11-22`), the model is told. Raises ContextFullError where the ids do not fit."""
    resumed = _Resuming(saved, engine, prefix, thinking, warm).resumed()
    if resumed.is_text:  # the prompt is a new one, with today's facts
        return resumed
    return replace(resumed, reminders=(*resumed.reminders, *_news(saved.events, directory, today)))


class _Resuming:
    """One session being taken up."""

    def __init__(
        self,
        saved: Saved,
        engine: Engine,
        prefix: Sequence[Segment],
        thinking: bool,
        warm: Context | None,
    ) -> None:
        self._tokens, self._events, self._schemas = saved.tokens, saved.events, saved.schemas
        self._engine = engine
        self._prefix = tuple(prefix)
        self._thinking = thinking
        self._warm = warm

    def resumed(self) -> Resumed:
        branch, position = self._where()
        path = self._tokens.path(branch.number)
        turns = self._events.on(path)
        next_branch = max(self._tokens.branches) + 1
        is_text = not self._is_readable(branch)
        first: dict[str, Any] | None = None
        number = branch.number
        if is_text or position < branch.end:
            number, next_branch = next_branch, next_branch + 1
            why, at = ("text", 0) if is_text else ("repair", position)
            first = {"branch": number, "from": branch.number, "at": at, "why": why}
            first["fingerprint"] = self._engine.fingerprint
        elif number != self._tokens.current:
            first = {"switch": number}
        left_out = 0
        broken = Owed(Tail())
        if is_text:
            context = self._engine.new_context()
            tail, left_out = self._as_text(turns)
        else:
            back, broken = self._at(branch, position, self._before(turns, branch, position))
            context, tail = back.place.context, back.tail
        return Resumed(
            place=Place(context, number),
            next_branch=next_branch,
            first=first,
            tail=tail,
            past=Past(*self._past(path, turns, is_text)),
            calls=_calls(self._events),
            reminders=_reminders(self._events),
            notice=self._notice(turns, branch, context, left_out),
            is_text=is_text or not position,
            story=Story(turns, tuple(broken.events)),
        )

    def _where(self) -> tuple[Branch, int]:
        """The branch that goes on, and how many of its ids are whole. One that was begun for a
        summary and has no word of it yet is given up for the one before it."""
        branch = self._tokens.branch
        while True:
            position = whole_length(branch.runs, self._engine.tokenizer)
            if position or branch.why != "compaction" or branch.origin is None:
                return branch, position
            branch = self._tokens.branches[branch.origin]

    def _is_readable(self, branch: Branch) -> bool:
        mark = branch.fingerprint or self._events.header.get("fingerprint")
        return branch.is_whole and mark == self._engine.fingerprint

    def _before(
        self, turns: Sequence[SavedTurn], branch: Branch, position: int
    ) -> Sequence[SavedTurn]:
        return [turn for turn in turns if turn.branch != branch.number or turn.at < position]

    def _at(self, branch: Branch, position: int, older: Sequence[SavedTurn]) -> tuple[Return, Owed]:
        """The first `position` ids of a branch; `older` are the turns that are told where there
        are none."""
        runs = branch.before(position)
        if not runs or not self._is_readable(branch):
            tail, _ = self._as_text(older)
            return Return(Place(self._engine.new_context(), branch.number), tail), Owed(Tail())
        end = runs[-1].end
        step = self._answered(branch, end)
        found = owed(runs, self._engine.tokenizer, self._schemas, lambda _: step or ())
        place = Place(self._context(runs), branch.number)
        return Return(place, found.tail), found if step is None else Owed(found.tail)

    def _context(self, runs: Sequence[Run]) -> Context:
        ids = ids_of(runs)
        if self._warm is not None and self._warm.tokens == ids:
            return self._warm.fork()
        return self._engine.new_context(ids)

    def _answered(self, branch: Branch, end: int) -> list[str | None] | None:
        """What the calls of the step that ended at `end` were answered; None where the step never
        came to its end."""
        wanted: list[int] = []  # the branch, and those it was begun from
        at: Branch | None = branch
        while at is not None:
            wanted.append(at.number)
            at = self._tokens.branches.get(at.origin) if at.origin is not None else None
        found: dict[int, list[str | None]] = {}
        for turn in reversed(self._events.turns):  # it is most often the last one's
            for (number, place), answers in _answers(turn).items():
                if place == end:
                    found.setdefault(number, answers)
            if branch.number in found:
                break
        return next((found[number] for number in wanted if number in found), None)

    def _as_text(self, turns: Sequence[SavedTurn]) -> tuple[Tail, int]:
        """The prompt and these turns as text, and how many of the first ones do not fit."""
        from ds4_agent.agent.astext import as_text
        from ds4_agent.agent.transcript import ids_with_kinds

        def length(segments: Sequence[Segment]) -> int:
            return len(ids_with_kinds(self._engine.tokenizer, segments))

        room = self._engine.context_length // 2 - length(self._prefix)
        first = len(turns)
        while first:
            alone = as_text(turns[first - 1 : first], thinking=self._thinking)
            room -= length((*alone.segments, *map(data, alone.results)))
            if room < 0:
                break
            first -= 1
        told = as_text(turns[first:], thinking=self._thinking)
        return Tail((*self._prefix, *told.segments), told.results), first

    def _past(
        self, path: Sequence[tuple[int, int | None]], turns: Sequence[SavedTurn], is_text: bool
    ) -> tuple[list[Mark], list[Callable[[], Return]]]:
        """The turns to go back to, and the conversations that were left for a summary."""
        left: list[int] = []
        depths: dict[int, int] = {}
        for number, _ in path:
            branch = self._tokens.branches[number]
            if branch.why == "compaction" and branch.origin is not None:
                left.append(branch.origin)
            if is_text or branch.why == "text":
                left, depths = [], dict.fromkeys(depths, 0)
            depths[number] = len(left)
        marks = [
            Mark(
                turn.prompt,
                turn.changes,
                depths[turn.branch],
                partial(self._return, turn.branch, turn.at, turns, index),
            )
            for index, turn in enumerate(turns)
        ]
        return marks, [partial(self._return, number, None, (), 0) for number in left]

    def _return(
        self, number: int, at: int | None, turns: Sequence[SavedTurn], older: int
    ) -> Return:
        branch = self._tokens.branches[number]
        runs = branch.runs if at is None else branch.before(at)
        return self._at(branch, whole_length(runs, self._engine.tokenizer), turns[:older])[0]

    def _notice(
        self, turns: Sequence[SavedTurn], branch: Branch, context: Context, left_out: int
    ) -> str:
        said = f"resumed: {number_of(len(turns), 'turn')}, "
        damaged = self._tokens.damaged + self._events.damaged
        lost = f"; {number_of(damaged, 'damaged line')} of its logs lost" if damaged else ""
        if self._is_readable(branch):
            count, at_hand = len(context.tokens), context.at_hand()
            rest = f", {count - at_hand:,} to compute" if at_hand < count else ""
            return f"{said}{number_of(count, 'token')}: {at_hand:,} kept{rest}{lost}"
        why = "its token log is damaged"
        if branch.is_whole:
            model = str(self._events.header.get("model", ""))
            why = "it was another model's" + (f" ({model})" if model else "")
        least = f" without the first {left_out:,}" if left_out else ""
        return f"{said}as text{least} since {why}: all of it is computed with the next prompt{lost}"


def _answers(turn: SavedTurn) -> dict[tuple[int, int], list[str | None]]:
    """For each step of a turn by its branch and end: what its calls were answered, in their
    order."""
    uses: dict[tuple[int, int], list[str]] = {}
    told: dict[str, str] = {}
    number, step = turn.branch, []
    for line in turn.lines:
        match line:
            case {"type": "branch", "branch": int(number)}:
                pass
            case {"type": "assistant", "at": int(at), "message": {"content": [*blocks]}}:
                step = [b["id"] for b in blocks if b.get("type") == "tool_use" and "id" in b]
                uses[number, at] = step
            case {"type": "user", "message": {"content": [{"type": "tool_result", **block}]}}:
                told[str(block.get("tool_use_id"))] = str(block.get("content"))
            case {"type": "unread", "id": str(call_id), "text": str(text)}:
                told[call_id] = text
                step.append(call_id)
    return {key: [told.get(call) for call in calls] for key, calls in uses.items()}


def _news(events: SavedEvents, directory: str, today: str) -> list[str]:
    """What the model was told once and is no longer so."""
    news = []
    opened = events.last("resumed") or events.header
    if opened.get("cwd") not in (directory, None):
        news.append(f"Directory: {directory}")
    times = (line.get("time") for line in events.backwards())
    last = next((time for time in times if isinstance(time, int | float)), None)
    if today and last and datetime.fromtimestamp(last).astimezone().date().isoformat() != today:
        news.append(f"Date: {today}")
    return news


def _calls(events: SavedEvents) -> int:
    """How many calls there were: they are numbered, so that the newest one says it."""
    for line in events.backwards():
        if line.get("type") not in ("assistant", "unread"):
            continue
        ids = [line.get("id", "")]
        match line:
            case {"message": {"content": [*blocks]}}:
                ids = [block.get("id", "") for block in blocks if isinstance(block, Mapping)]
        if numbers := [int(number) for number in _CALL.findall(" ".join(map(str, ids)))]:
            return max(numbers)
    return 0


def _reminders(events: SavedEvents) -> tuple[str, ...]:
    """What the model had still to be told."""
    pending: list[str] = []
    for line in events.backwards():
        if line.get("type") == "assistant":
            break
        if line.get("type") == "reminder" and isinstance(line.get("text"), str):
            pending.append(line["text"])
    return tuple(reversed(pending))
