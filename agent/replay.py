"""What the screen showed of a session's turns, as the events it showed then.

In: turns from the event log, damaged or broken off as they may be. Out: the events of each, opened
and closed as `events` says, so that the same widgets and lines come of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from ds4_agent.agent import events as ev

if TYPE_CHECKING:
    from ds4_agent.sessions.saved import SavedTurn

__all__ = ["BROKEN_OFF", "STOPPED", "Story", "replay_turn"]

STOPPED = "Error: the agent was stopped before this call ended; it may be half done"
BROKEN_OFF = "the agent was stopped in the middle of this turn"
_USAGE = ev.Usage()


@dataclass(frozen=True)
class Story:
    """What the screen showed of `turns`; the events of a long session are made as they are asked
    for. `broken_off` are those of the last turn's step that never came to its end."""

    turns: Sequence[SavedTurn] = ()
    broken_off: tuple[ev.Event, ...] = ()

    def __len__(self) -> int:
        """How many turns it has."""
        return len(self.turns)

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[ev.Event]:
        """Of the turns start..stop-1."""
        stop = len(self) if stop is None else stop
        for index in range(start, stop):
            is_last = index == len(self) - 1
            yield from replay_turn(self.turns[index], self.broken_off if is_last else ())


def replay_turn(turn: SavedTurn, broken_off: Sequence[ev.Event] = ()) -> Iterator[ev.Event]:
    """The events of one turn. `broken_off` are those of a step that never came to its end."""
    yield ev.RunStarted("", turn.prompt, "", "", ())
    waiting: dict[str, str] = {}
    ended: ev.TurnEnded | None = None
    for told in chain(chain.from_iterable(map(_events, turn.lines)), broken_off):
        event = told
        match told:
            case ev.TurnEnded():
                ended = told  # told last: what came after it (an undo) belongs to the turn
                continue
            case ev.CallStarted(call_id, name):
                waiting[call_id] = name
            case ev.CallFinished(call_id):
                event = replace(told, name=waiting.pop(call_id, told.name))
            case _:
                pass
        yield event
    for call_id, name in waiting.items():
        yield ev.CallFinished(call_id, name, STOPPED, is_error=True)
    if ended is None:
        yield ev.Notice(BROKEN_OFF)
    yield ended or ev.TurnEnded("end", "", _USAGE, 0, 0.0)


def _events(line: Mapping[str, Any]) -> Iterator[ev.Event]:
    """The events of one line; none of a line that is not understood."""
    match line:
        case {"type": "assistant", "message": {"content": [*blocks]}}:
            yield from (event for block in blocks for event in _block(block))
            yield ev.StepFinished(_USAGE, 0, 0, 0.0)
        case {"type": "user", "message": {"content": [{"type": "tool_result", **block}]}}:
            yield ev.CallFinished(
                _text(block, "tool_use_id"),
                "",
                _text(block, "content"),
                block.get("is_error") is True,
                _text(line, "diff"),
                line.get("ran") is not False,
            )
        case {"type": "user", "message": {"content": [{"type": "text", "text": str(text)}]}}:
            yield ev.Steered(text)
        case {"type": "unread", "id": str(call_id), "name": str(name), "text": str(text)}:
            yield ev.CallStarted(call_id, name)
            yield ev.CallFinished(call_id, name, text, is_error=True, ran=False)
        case {"type": "engine", "event": "notice", "text": str(text)}:
            yield ev.Notice(text)
        case {"type": "engine", "event": "compacted", "summary": str(summary)}:
            yield ev.Compacted(summary, 0)
        case {"type": "error" | "undo", "text": str(text)}:
            yield ev.Notice(text)
        case {"type": "result", "subtype": "limit" | "aborted" as subtype}:
            reason: ev.TurnReason = "interrupted" if subtype == "aborted" else "context"
            detail = _text(line, "stop_reason")
            yield ev.TurnEnded(reason, _text(line, "result"), _USAGE, 0, 0.0, detail)
        case {"type": "result"}:
            yield ev.TurnEnded("end", _text(line, "result"), _USAGE, 0, 0.0)


def _block(block: object) -> Iterator[ev.Event]:
    match block:
        case {"type": "thinking", "thinking": str(text)}:
            yield ev.ThinkingDelta(text)
        case {"type": "text", "text": str(text)}:
            yield ev.TextDelta(text)
        case {"type": "tool_use", "id": str(call_id), "name": str(name), "input": dict(arguments)}:
            yield ev.CallStarted(call_id, name)
            yield ev.CallReady(call_id, name, arguments)


def _text(record: Mapping[Any, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""
