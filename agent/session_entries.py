"""What was said in a session, in order: the event log as entries to show, export and search.

In: records of the log, damaged and of newer versions as they may be. Out: `Entry`s; what is not
understood is left out. A call and its result are one entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = ["Entry", "entries"]

Kind = Literal["prompt", "thinking", "answer", "call", "remark"]


@dataclass(frozen=True)
class Entry:
    """`text` is what was said; of a call its result, None while there is none."""

    kind: Kind
    text: str | None
    time: float = 0.0  # seconds since 1970, 0 where unknown
    turn: int = 0  # from 1: which a prompt begins; the first that going back left behind
    name: str = ""  # of a call
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_error: bool = False


def entries(records: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """The entries of a session."""
    found: list[Entry] = []
    waiting: dict[str, int] = {}  # calls without a result, by id: where they stand
    turn = 0
    for record in records:
        time = _number(record.get("time"))
        for entry, call_id in _of_record(record):
            if entry.kind == "prompt":
                turn += 1
                found.append(replace(entry, time=time, turn=turn))
            elif entry.kind != "call":
                turn = min(turn, entry.turn - 1) if entry.turn > 0 else turn
                found.append(replace(entry, time=time))
            elif entry.text is None:
                waiting[call_id] = len(found)
                found.append(replace(entry, time=time))
            elif call_id in waiting:
                place = waiting.pop(call_id)
                found[place] = replace(found[place], text=entry.text, is_error=entry.is_error)
            else:  # the line with the call is damaged
                found.append(replace(entry, time=time))
    return found


def _of_record(record: Mapping[str, Any]) -> Iterator[tuple[Entry, str]]:
    """The entries of one record, each with the id of its call or ""."""
    match record:
        case {"type": "prompt", "text": str(text)}:
            yield Entry("prompt", text), ""
        case {"type": "assistant" | "user", "message": {"content": list(blocks)}}:
            for block in blocks:
                yield from _of_block(block)
        case {"type": "engine", "event": "notice", "text": str(text)}:
            yield Entry("remark", text), ""
        case {"type": "engine", "event": "compacted", "summary": str(summary)}:
            yield Entry("remark", f"the conversation goes on from a summary:\n\n{summary}"), ""
        case {"type": "error", "text": str(text)}:
            yield Entry("remark", f"error: {text}", is_error=True), ""
        case {"type": "unread", "name": str(name), "text": str(text)}:
            yield Entry("call", text, name=name, is_error=True), ""
        case {"type": "undo", "files": list(files)}:
            names = [str(file.get("shown", "")) for file in files if isinstance(file, Mapping)]
            yield Entry("remark", f"undone: {', '.join(names)}"), ""
        case {"type": "rewind", "turn": int(turn)}:
            text = f"gone back: turn {turn} and what followed it are left"
            yield Entry("remark", text, turn=turn), ""
        case {"type": "resumed", "model": str(model)}:
            yield Entry("remark", f"taken up again with {model}"), ""
        case {"type": "result", "subtype": str(subtype), "stop_reason": str(reason)}:
            if subtype != "success":
                yield Entry("remark", reason), ""


def _of_block(block: object) -> Iterator[tuple[Entry, str]]:
    match block:
        case {"type": "thinking", "thinking": str(text)}:
            yield Entry("thinking", text), ""
        case {"type": "text", "text": str(text)}:
            yield Entry("answer", text), ""
        case {"type": "tool_use", "id": str(call_id), "name": str(name), "input": dict(arguments)}:
            yield Entry("call", None, name=name, arguments=arguments), call_id
        case {"type": "tool_result", "tool_use_id": str(call_id), "content": str(text), **rest}:
            yield Entry("call", text, is_error=rest.get("is_error") is True), call_id


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
