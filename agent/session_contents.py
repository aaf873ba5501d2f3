"""`ds4-agent sessions show|search|export`: what was said in sessions.

In: parsed arguments. Out: text on stdout or in a file, JSON where that is asked for. Raises
UsageError, OutputError and SessionError.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.places import find_places
from ds4_agent.agent.printing import (
    check_writable,
    print_json,
    print_text,
    to_json,
    warn,
    write_atomically,
)
from ds4_agent.agent.resume_time import resume_times, shown_time
from ds4_agent.agent.rules import subject
from ds4_agent.agent.session_choice import chosen_sessions, sessions_root, take, tell_others
from ds4_agent.agent.session_entries import Entry, entries
from ds4_agent.agent.session_markdown import markdown
from ds4_agent.agent.session_rows import (
    as_json,
    iso_time,
    local_time,
    row,
    size_facts,
)
from ds4_agent.sessions.catalogue import find
from ds4_agent.sessions.errors import SessionFileError
from ds4_agent.sessions.lines import Lines, read_lines
from ds4_agent.sessions.summary import EVENTS, Summary, number_of

__all__ = ["export", "search", "show", "whole"]

SHOWN_MATCHES = 3  # of a session, in text
BEFORE, AROUND = 40, 120  # characters of a match's surroundings


def show(chosen: argparse.Namespace) -> None:
    """The conversation as it was on the screen, results by their first line."""
    (name,) = take(chosen, 1, 1, "show ID")
    summary, lines = _read(name)
    if chosen.json:
        print_json(whole(summary, lines))
        return
    facts = {
        "session": summary.id,
        "forked from": summary.forked_from,
        "directory": summary.directory,
        "model": summary.model,
        "started": local_time(summary.started),
        "last used": local_time(summary.last_used),
        "size": size_facts(summary),
        "to resume": shown_time(resume_times([summary], find_places(os.environ).kv)[summary.id]),
        "note": summary.note,
    }
    parts = [one_line(summary.title or summary.id)]
    parts.append("\n".join(f"{key:<12} {one_line(text)}" for key, text in facts.items() if text))
    parts += [_shown(entry) for entry in entries(lines.records) if entry.kind != "thinking"]
    print_text("\n\n".join(parts))


def search(chosen: argparse.Namespace) -> None:
    """The sessions in which a text was said, in capitals or not, and where."""
    text = " ".join(take(chosen, 1, sys.maxsize, "search TEXT")).strip()
    if not text:
        raise UsageError("there is nothing to search for")
    pattern = re.compile(re.escape(text), re.IGNORECASE)
    found, others = chosen_sessions(chosen)
    results = [(summary, _matches(summary, pattern)) for summary in found]
    results = [(summary, matches) for summary, matches in results if matches]
    if chosen.json:
        print_json([{**as_json(summary), "matches": matches} for summary, matches in results])
    elif results:
        times = resume_times([summary for summary, _ in results], find_places(os.environ).kv)
        rows = (_result(s, times[s.id], matches, chosen.all) for s, matches in results)
        print_text("\n".join(rows))
    else:
        warn(f"no session {'' if chosen.all else 'of this directory '}says {text}")
    tell_others(found, others, chosen)


def export(chosen: argparse.Namespace) -> None:
    """A session as a whole, on stdout or in a file."""
    (name,) = take(chosen, 1, 1, "export ID")
    if chosen.output is not None:
        check_writable(chosen.output)
    summary, lines = _read(name)
    if chosen.format == "json":
        text = to_json(whole(summary, lines)) + "\n"
    else:
        text = markdown(summary, entries(lines.records), lines.damaged)
    if chosen.output is None:
        print_text(text.removesuffix("\n"))
    else:
        write_atomically(chosen.output, text)
    if lines.damaged:
        warn(f"{number_of(lines.damaged, 'damaged line')} in its log left out")


def _read(name: str) -> tuple[Summary, Lines]:
    summary = find(sessions_root(), name)
    if not summary.is_readable:
        raise SessionFileError(f"session {summary.id}: {summary.note}")
    try:
        return summary, read_lines(sessions_root() / summary.id / EVENTS)
    except OSError as error:
        reason = error.strerror or error
        raise SessionFileError(f"session {summary.id} cannot be read: {reason}") from error


def _matches(summary: Summary, pattern: re.Pattern[str]) -> list[dict[str, Any]]:
    """Every entry of a session that holds the text, with what stands round it."""
    matches = []
    if pattern.search(summary.title):
        matches.append({"kind": "title", "time": None, "text": summary.title})
    lines = Lines(())
    if summary.is_readable:
        with _skipping(summary):
            lines = read_lines(sessions_root() / summary.id / EVENTS)
    for entry in entries(lines.records):
        if entry.kind == "thinking":
            continue
        for text in _texts(entry):
            match = pattern.search(text)
            if match is not None:
                start = max(0, match.start() - BEFORE)
                piece = ("…" if start else "") + text[start : start + AROUND]
                kind = entry.name or entry.kind
                matches.append({"kind": kind, "time": iso_time(entry.time), "text": piece})
                break
    return matches


@contextmanager
def _skipping(summary: Summary) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        warn(f"session {summary.id} cannot be read: {error.strerror or error}")


def _texts(entry: Entry) -> Iterator[str]:
    for value in entry.arguments.values():
        yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    yield entry.text or ""


def _result(
    summary: Summary,
    resume: float | None,
    matches: Sequence[Mapping[str, Any]],
    with_directory: bool,
) -> str:
    lines = [row(summary, resume, with_directory)]
    for match in matches[:SHOWN_MATCHES]:
        lines.append("    " + one_line(f"{match['kind']}: {match['text']}", 160))
    if len(matches) > SHOWN_MATCHES:
        lines.append(f"    and {number_of(len(matches) - SHOWN_MATCHES, 'more place')}")
    return "\n".join(lines)


def _shown(entry: Entry) -> str:
    text = visible(entry.text or "").strip("\n")
    if entry.kind == "prompt":
        return "\n".join(f"> {line}" for line in text.split("\n"))
    if entry.kind == "answer":
        return text
    if entry.kind == "remark":
        return f"-- {text}"
    said = one_line(f"{entry.name} {subject(entry.name, entry.arguments)}")
    first = "no result" if entry.text is None else one_line(text.partition("\n")[0])
    return f"* {said}\n  {first}".rstrip()


def whole(summary: Summary, lines: Lines) -> dict[str, Any]:
    """A session for a program: every record as it stands in the log."""
    return {**as_json(summary), "damaged": lines.damaged, "records": lines.records}
