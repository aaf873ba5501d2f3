"""`ds4-agent sessions list|show|search|export|fork|rename|rm`: the sessions there are.

In: their arguments. Out: lines on stdout (JSON with `--json`), the exit code. Loads no model. What
was said in a session reaches the terminal made visible; a session that cannot be read says why.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ds4_agent.agent.cli import Parser, add_common, existing_directory
from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.errors import OutputError, UsageError
from ds4_agent.agent.output import check_writable, print_text, warn, write_atomically
from ds4_agent.agent.places import find_places
from ds4_agent.agent.rules import subject
from ds4_agent.agent.session_entries import Entry, entries
from ds4_agent.agent.session_markdown import local_time, markdown
from ds4_agent.sessions.catalogue import find, fork, in_directory, list_sessions, remove, rename
from ds4_agent.sessions.errors import SessionError, SessionFileError
from ds4_agent.sessions.lines import Lines, read_lines
from ds4_agent.sessions.summary import EVENTS, Summary, number_of

__all__ = ["run_sessions"]

USAGE = """\
ds4-agent sessions list [--all] [--json]
       ds4-agent sessions show ID [--json]
       ds4-agent sessions search TEXT [--all] [--json]
       ds4-agent sessions export ID [--format md|json] [-o FILE]
       ds4-agent sessions fork ID
       ds4-agent sessions rename ID TITLE
       ds4-agent sessions rm ID …

An ID may be cut short where that leaves no doubt. Listed and searched are the sessions of this
directory (-C DIR: of that one); with --all those of every directory."""
SHOWN_MATCHES = 3  # of a session, in text
BEFORE, AROUND = 40, 120  # characters of a match's surroundings
UNITS = ("B", "KB", "MB", "GB", "TB")


def run_sessions(arguments: Sequence[str]) -> int:
    """Run `ds4-agent sessions …`. Raises UsageError and OutputError."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "list": _list,
        "show": _show,
        "search": _search,
        "export": _export,
        "fork": _fork,
        "rename": _rename,
        "rm": _rm,
    }
    parser = Parser(prog="ds4-agent sessions", usage=USAGE, allow_abbrev=False)
    parser.add_argument("action", choices=list(actions), metavar="|".join(actions))
    parser.add_argument("words", nargs="*", metavar="ID|TEXT|TITLE")
    parser.add_argument("--all", action="store_true", help="of every directory (list, search)")
    parser.add_argument("--json", action="store_true", help="machine-readable (list, show, search)")
    parser.add_argument("--format", choices=("md", "json"), help="of an export (default: md)")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="export: into FILE")
    add_common(parser)
    chosen = parser.parse_intermixed_args(arguments)
    with _told():
        actions[chosen.action](chosen)
    return 0


def _list(chosen: argparse.Namespace) -> None:
    _take(chosen, 0, 0, "list")
    found, others = _chosen_sessions(chosen)
    if chosen.json:
        _print_json([_as_json(summary) for summary in found])
    elif found:
        print_text("\n".join([_HEAD, *(_row(summary, chosen.all) for summary in found)]))
    _tell_others(found, others, chosen)


def _show(chosen: argparse.Namespace) -> None:
    """The conversation as it was on the screen, results by their first line."""
    (name,) = _take(chosen, 1, 1, "show ID")
    summary, lines = _read(name)
    if chosen.json:
        _print_json(_whole(summary, lines))
        return
    facts = {
        "session": summary.id,
        "forked from": summary.forked_from,
        "directory": summary.directory,
        "model": summary.model,
        "started": local_time(summary.started),
        "last used": local_time(summary.last_used),
        "size": _facts_of_size(summary),
        "note": summary.note,
    }
    parts = [one_line(summary.title or summary.id)]
    parts.append("\n".join(f"{key:<12} {one_line(text)}" for key, text in facts.items() if text))
    parts += [_shown(entry) for entry in entries(lines.records) if entry.kind != "thinking"]
    print_text("\n\n".join(parts))


def _search(chosen: argparse.Namespace) -> None:
    """The sessions in which a text was said, in capitals or not, and where."""
    text = " ".join(_take(chosen, 1, sys.maxsize, "search TEXT")).strip()
    if not text:
        raise UsageError("there is nothing to search for")
    pattern = re.compile(re.escape(text), re.IGNORECASE)
    found, others = _chosen_sessions(chosen)
    results = [(summary, _matches(summary, pattern)) for summary in found]
    results = [(summary, matches) for summary, matches in results if matches]
    if chosen.json:
        _print_json([{**_as_json(summary), "matches": matches} for summary, matches in results])
    elif results:
        print_text("\n".join(_result(summary, matches, chosen.all) for summary, matches in results))
    else:
        warn(f"no session {'' if chosen.all else 'of this directory '}says {text}")
    _tell_others(found, others, chosen)


def _export(chosen: argparse.Namespace) -> None:
    (name,) = _take(chosen, 1, 1, "export ID")
    if chosen.output is not None:
        check_writable(chosen.output)
    summary, lines = _read(name)
    if chosen.format == "json":
        text = _json(_whole(summary, lines)) + "\n"
    else:
        text = markdown(summary, entries(lines.records), lines.damaged)
    if chosen.output is None:
        print_text(text.removesuffix("\n"))
    else:
        write_atomically(chosen.output, text)
    if lines.damaged:
        warn(f"{number_of(lines.damaged, 'damaged line')} in its log left out")


def _fork(chosen: argparse.Namespace) -> None:
    (name,) = _take(chosen, 1, 1, "fork ID")
    copy = fork(_root() / find(_root(), name).id, datetime.now().astimezone())
    print_text(visible(copy.name))
    warn(f"ds4-agent --resume {copy.name} goes on in it")


def _rename(chosen: argparse.Namespace) -> None:
    name, *title = _take(chosen, 2, sys.maxsize, "rename ID TITLE")
    rename(_root() / find(_root(), name).id, " ".join(title))


def _rm(chosen: argparse.Namespace) -> None:
    names = _take(chosen, 1, sys.maxsize, "rm ID …")
    for summary in dict.fromkeys(find(_root(), name) for name in names):  # all there, or none goes
        remove(_root() / summary.id)
        print_text(f"removed {one_line(summary.id)}  {one_line(summary.title, 60)}".rstrip())


def _take(chosen: argparse.Namespace, least: int, most: int, usage: str) -> list[str]:
    words: list[str] = chosen.words
    if not least <= len(words) <= most:
        raise UsageError(f"it is `ds4-agent sessions {usage}`; see sessions --help")
    if (chosen.format or chosen.output is not None) and chosen.action != "export":
        raise UsageError("--format and -o go with sessions export")
    return words


def _root() -> Path:
    return find_places(os.environ).sessions


def _chosen_sessions(chosen: argparse.Namespace) -> tuple[list[Summary], list[Summary]]:
    """The sessions asked for, newest first, and the others."""
    every = list_sessions(_root())
    if chosen.all:
        return every, []
    here = in_directory(every, existing_directory(chosen.cd or Path()))
    ids = {summary.id for summary in here}
    return here, [summary for summary in every if summary.id not in ids]


def _tell_others(
    found: Sequence[Summary], others: Sequence[Summary], chosen: argparse.Namespace
) -> None:
    unread = sum(not summary.directory for summary in others)
    if not found and chosen.action == "list":
        said = f"; --all lists {number_of(len(others), 'session')} of others" if others else ""
        warn(f"no session {'yet' if chosen.all else 'of this directory'}{said}")
    elif unread:
        warn(f"{number_of(unread, 'session')} of unknown directory; --all lists them and says why")


def _read(name: str) -> tuple[Summary, Lines]:
    summary = find(_root(), name)
    if not summary.is_readable:
        raise SessionFileError(f"session {summary.id}: {summary.note}")
    with _told():
        return summary, read_lines(_root() / summary.id / EVENTS)


@contextmanager
def _told() -> Iterator[None]:
    """Errors as the kinds `cli` knows: the user's, and the disk's."""
    try:
        yield
    except SessionFileError as error:
        raise OutputError(str(error)) from error
    except SessionError as error:
        raise UsageError(str(error)) from error


def _matches(summary: Summary, pattern: re.Pattern[str]) -> list[dict[str, Any]]:
    """Every entry of a session that holds the text, with what stands round it."""
    matches = []
    if pattern.search(summary.title):
        matches.append({"kind": "title", "time": None, "text": summary.title})
    lines = Lines(())
    if summary.is_readable:
        with _skipping(summary):
            lines = read_lines(_root() / summary.id / EVENTS)
    for entry in entries(lines.records):
        if entry.kind == "thinking":
            continue
        for text in _texts(entry):
            match = pattern.search(text)
            if match is not None:
                start = max(0, match.start() - BEFORE)
                piece = ("…" if start else "") + text[start : start + AROUND]
                kind = entry.name or entry.kind
                matches.append({"kind": kind, "time": _iso(entry.time), "text": piece})
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


_HEAD = f"{'ID':<22}  {'LAST USED':<16}  {'TURNS':>5}  {'TOKENS':>9}  {'SIZE':>7}  TITLE"


def _row(summary: Summary, with_directory: bool) -> str:
    title = one_line(summary.title, 60) or "-"
    columns = [
        f"{one_line(summary.id):<22}",
        f"{local_time(summary.last_used):<16}",
        f"{summary.turns:>5,}",
        f"{summary.tokens:>9,}",
        f"{_size(summary.bytes):>7}",
        f"{title}  [{one_line(summary.model, 30)}]" if summary.model else title,
    ]
    if with_directory and summary.directory:
        columns.append(f"in {one_line(summary.directory)}")
    if summary.note:
        columns.append(f"({one_line(summary.note)})")
    return "  ".join(columns)


def _result(summary: Summary, matches: Sequence[Mapping[str, Any]], with_directory: bool) -> str:
    lines = [_row(summary, with_directory)]
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


def _facts_of_size(summary: Summary) -> str:
    turns, tokens = number_of(summary.turns, "turn"), number_of(summary.tokens, "token")
    return f"{turns}, {tokens}, {_size(summary.bytes)}"


def _size(count: int) -> str:
    """`812 B`, `4.1 KB`: thousands, as disks are sold."""
    value, unit = float(count), 0
    while value >= 999.5 and unit + 1 < len(UNITS):
        value, unit = value / 1000, unit + 1
    return (
        f"{value:.0f} {UNITS[unit]}" if unit == 0 or value >= 9.95 else f"{value:.1f} {UNITS[unit]}"
    )


def _whole(summary: Summary, lines: Lines) -> dict[str, Any]:
    """A session for a program: every record as it stands in the log."""
    return {**_as_json(summary), "damaged": lines.damaged, "records": lines.records}


def _as_json(summary: Summary) -> dict[str, Any]:
    times = {"started": _iso(summary.started), "last_used": _iso(summary.last_used)}
    return {**asdict(summary), **times}


def _iso(seconds: float) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None
    except (OSError, OverflowError, ValueError):
        return None


def _print_json(value: Any) -> None:
    print_text(_json(value))


def _json(value: Any) -> str:
    # ASCII but DEL, which a terminal could act on: strict readers take it escaped as well.
    return json.dumps(value, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")
