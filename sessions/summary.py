"""One session in a line: what a list of sessions says of it.

In: a session's directory. Out: a `Summary`, from its event log alone. Never raises for what is on
the disk: whatever is wrong with a session is said in its `note`, and costs only that.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Summary", "number_of", "read_summary"]

EVENTS = "events.jsonl"
LONGEST_TITLE = 200  # characters
MOST_RATE = 1e9  # tokens a second: no machine has more
YEAR_3000 = 32_503_680_000.0  # seconds since 1970: no time of ours is later
# Lines as `SessionLog` writes them of which a summary needs a number or two: they are most of a
# log, and decoding them most of the time. Anything spelt otherwise is decoded.
_PASSED_OVER = re.compile(
    rb'\{"time":(\d{1,10}(?:\.\d+)?),"type":"(?:assistant|user|tools|task|system|(engine|result))"'
)
# Not in a text, where a quotation mark has a backslash in front of it.
_TOKENS = re.compile(rb'"context_tokens":(\d{1,15})[,}]')
_RATE = re.compile(rb'"prefill_rate":(\d{1,15}\.\d{1,20})[,}]')


@dataclass(frozen=True, slots=True)
class Summary:
    """`id` is the directory's name. Times are seconds since 1970, 0 where unknown."""

    id: str
    title: str = ""  # as renamed, else the first prompt, on one line
    directory: str = ""  # where it last worked
    model: str = ""
    fingerprint: str = ""
    started: float = 0.0
    last_used: float = 0.0
    turns: int = 0  # prompts of the conversation as it stands
    tokens: int = 0  # of context, after the last step
    bytes: int = 0  # on the disk, with what is saved for undo
    forked_from: str = ""
    note: str = ""  # what is wrong with it, "" for nothing
    prefill_rate: float = 0.0  # tokens a second, as measured last; 0 where unknown

    @property
    def is_readable(self) -> bool:
        """Whether there is a log to read."""
        return self.bytes > 0


def read_summary(session: Path) -> Summary:
    """The summary of the session in a directory."""
    empty = Summary(session.name)
    try:
        if session.is_symlink():
            return replace(empty, note="it is a symbolic link, which is not followed")
        used = session.stat().st_mtime
    except OSError as error:
        return replace(empty, note=f"it cannot be read: {error.strerror or error}")
    try:
        found = _read(session)
    except FileNotFoundError:
        return replace(empty, last_used=used, note="nothing was recorded")
    except OSError as error:
        reason = error.strerror or error
        return replace(empty, last_used=used, note=f"it cannot be read: {reason}")
    return Summary(
        session.name,
        title=found.title or found.prompt,
        directory=_text(found.header, "cwd"),
        model=_text(found.header, "model"),
        fingerprint=_text(found.header, "fingerprint"),
        started=_time(found.first),
        last_used=found.last_used or used,
        turns=found.turns,
        tokens=found.tokens,
        bytes=_bytes_below(session),
        forked_from=_text(found.first, "forked_from"),
        note=found.note(),
        prefill_rate=found.prefill_rate,
    )


def number_of(count: int, noun: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@dataclass
class _Found:
    """A log, folded."""

    first: Mapping[str, Any]
    header: dict[str, Any]
    title: str = ""
    prompt: str = ""
    last_used: float = 0.0
    turns: int = 0
    tokens: int = 0
    damaged: int = 0
    prefill_rate: float = 0.0

    def note(self) -> str:
        if not self.header and not self.last_used:
            return "nothing in it can be read"
        if self.damaged:
            return f"{number_of(self.damaged, 'damaged line')} in its log"
        return "" if self.first else "its first line is missing"


def _read(session: Path) -> _Found:
    # Not waiting for a pipe, not following a link: this directory may be anybody's work.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(session / EVENTS, flags)
    found = _Found({}, {})
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{EVENTS} is not a file")
        for line in file:
            passed = _PASSED_OVER.match(line)
            if passed is not None and line.endswith(b"}\n"):
                found.last_used = max(found.last_used, float(passed[1]))
                if passed[2]:
                    _count(found, line)
                continue
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                _fold(found, record)
            else:
                found.damaged += 1
    return found


def _fold(found: _Found, record: dict[str, Any]) -> None:
    kind = record.get("type")
    if kind == "title":
        found.title = _on_one_line(_text(record, "text"))
        return  # naming a session is not using it
    found.last_used = max(found.last_used, _time(record))
    if kind == "session":
        found.first = found.first or record
        found.header = {**record, **found.header}
    elif kind == "resumed":
        found.header.update(record)
    elif kind == "prompt":
        found.turns += 1
        found.prompt = found.prompt or _on_one_line(_text(record, "text"))
    elif kind == "rewind" and isinstance(turn := record.get("turn"), int):
        found.turns = min(
            found.turns, max(turn - 1, 0)
        )  # that turn, from 1, and later ones are gone
    elif isinstance(tokens := record.get("context_tokens"), int):
        found.tokens = tokens
    elif kind == "result" and isinstance(rate := record.get("prefill_rate"), float):
        found.prefill_rate = rate if 0 < rate < MOST_RATE else 0.0


def _count(found: _Found, line: bytes) -> None:
    """What `_fold` takes from such a line."""
    if tokens := _TOKENS.search(line):
        found.tokens = int(tokens[1])
    elif rate := _RATE.search(line):
        found.prefill_rate = float(rate[1]) if float(rate[1]) < MOST_RATE else 0.0


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _time(record: Mapping[str, Any]) -> float:
    value = record.get("time")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < YEAR_3000 else 0.0  # type: ignore[operator,arg-type]


def _on_one_line(text: str) -> str:
    return " ".join(text[: LONGEST_TITLE * 4].split())[:LONGEST_TITLE]


def _bytes_below(directory: Path) -> int:
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:  # gone in between
                continue
    return total
