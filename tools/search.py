"""The tool `search`: a text or a regular expression in the files of the workspace.

In: a pattern and where to look. Out: `path:line: text` a match, and a count. ripgrep does it where
there is one, our own search elsewhere, with the same text from both. Bounded in time and size; a
pattern cannot hang the agent.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pathspec import GitIgnoreSpec

from ds4_agent.tools.api import tool
from ds4_agent.tools.files import count
from ds4_agent.tools.ignore import is_cheap, is_ignored, walk
from ds4_agent.tools.output import Output
from ds4_agent.tools.process import find_program
from ds4_agent.tools.text import shown as shown_line
from ds4_agent.tools.types import ToolContext, ToolError, ToolResult
from ds4_agent.tools.workspace import MissingFileError, Place, printable, refuse_special

WORKER = Path(__file__).with_name("search_worker.py")
DEFAULT_RESULTS, MOST_RESULTS = 100, 1000
MOST_CONTEXT = 20
LINE_WIDTH = 400
TIME_LIMIT_S = 20
OUTPUT_LIMIT = 32 * 1024 * 1024
RIPGREP = (
    *("--json", "--no-config", "--no-messages", "--sort=path", "--hidden", "--glob=!.git"),
    *("--no-ignore-global", "--no-ignore-dot", "--no-require-git", "--no-follow", "--crlf"),
)


@dataclass(frozen=True)
class Query:
    """What is looked for, and where; `below` filters paths relative to the workspace."""

    pattern: str
    is_regex: bool
    place: Place
    context: int
    limit: int
    globs: tuple[str, ...]
    below: GitIgnoreSpec | None
    excludes: bool

    def wants(self, path: str) -> bool:
        return self.below is None or self.below.match_file(path) != self.excludes


@dataclass(frozen=True)
class Line:
    """A line of a result; `matched` is False for one of the context."""

    path: str
    number: int
    text: str
    matched: bool


@dataclass
class Found:
    """All lines of an answer in order, and why there may be more."""

    lines: list[Line]
    notes: list[str]


@tool(effect="read")
def search(
    context_: ToolContext,
    pattern: str,
    path: str = ".",
    glob: str | None = None,
    mode: Literal["literal", "regex"] = "literal",
    context: int = 0,
    max_results: int = DEFAULT_RESULTS,
) -> ToolResult:
    """Search the lines of files; ignored and binary files are left out.

    pattern: text to find, case-sensitive
    path: file or directory to look in (default: the workspace)
    glob: only files whose path fits, as in *.py or src/**/*.{ts,tsx}
    mode: literal (default) or regex
    context: lines shown around each match
    max_results: how many matches at most (default 100)
    """
    if not pattern or "\n" in pattern:
        raise ToolError("the pattern is empty" if not pattern else "the pattern spans lines")
    if not 0 <= context <= MOST_CONTEXT:
        raise ToolError(f"context must be between 0 and {MOST_CONTEXT}")
    if not 1 <= max_results <= MOST_RESULTS:
        raise ToolError(f"max_results must be between 1 and {MOST_RESULTS}")
    place = context_.workspace.locate(path)
    if not place.real.exists():
        raise MissingFileError(f"{place.shown} does not exist")
    if not place.real.is_dir():
        refuse_special(place, place.real.stat())  # a pipe or device named outright never ends
    query = make_query(pattern, mode == "regex", place, context, max_results, glob)
    found = with_ripgrep(query, context_) or with_worker(query, context_)
    return ToolResult(render(query, found))


def make_query(
    pattern: str, is_regex: bool, place: Place, context: int, limit: int, glob: str | None
) -> Query:
    """The query of a call; `glob` has the meaning of a line in .gitignore, with braces."""
    excludes = bool(glob) and str(glob).startswith("!")
    globs = tuple(_without_braces((glob or "").removeprefix("!"))) if glob else ()
    try:
        below = GitIgnoreSpec.from_lines(globs) if globs else None
    except (ValueError, re.error) as error:
        raise ToolError(f"the glob {glob} is wrong: {error}") from error
    if not all(map(is_cheap, globs)):
        raise ToolError(f"the glob {glob} has too many stars")
    return Query(pattern, is_regex, place, context, limit, globs, below, excludes)


def with_ripgrep(query: Query, context: ToolContext) -> Found | None:
    """Ask ripgrep; None where there is none, or when it does not understand the pattern."""
    program = find_program("rg", context.workspace.root)
    if program is None:
        return None
    command = [program, *RIPGREP, f"--max-count={query.limit + 1}"]
    command += [] if query.is_regex else ["--fixed-strings"]
    command += [f"--context={query.context}"] if query.context else []
    # As a type, not with --glob: that one would bring back what .gitignore leaves out.
    if query.globs and all(re.fullmatch(r"[\w.*?-]+", glob) for glob in query.globs):
        command += [f"--type-add=ds4:{glob}" for glob in query.globs]
        command += ["--type-not=ds4" if query.excludes else "--type=ds4"]
    is_directory = query.place.real.is_dir()
    directory = query.place.real if is_directory else query.place.real.parent
    target = "./" if is_directory else f"./{query.place.real.name}"
    command += ["--no-ignore-parent"] if is_ignored(directory) else []
    command += ["--regexp", query.pattern, "--", target]
    records, notes, code = _records(command, directory, b"", context)
    if code == 2 and not records:
        return None
    return Found(list(_ripgrep_lines(query, records, is_directory)), notes)


def with_worker(query: Query, context: ToolContext) -> Found:
    """Our own search. Raises ToolError for a bad regular expression."""
    paths, notes = _candidates(query, context)
    asked = {
        "pattern": query.pattern,
        "is_regex": query.is_regex,
        "context": query.context,
        "limit": query.limit + 1,
        "files": [str(real) for _, real in paths],
    }
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(WORKER)]
    records, more, _ = _records(command, query.place.real.parent, _json(asked), context)
    lines: list[Line] = []
    skipped = 0
    for record in records:
        if "error" in record:
            raise ToolError(f"the regular expression is wrong: {record['error']}")
        skipped += "skipped" in record
        shown = printable(paths[record["file"]][0])
        lines += [Line(shown, n, text, matched) for n, text, matched in record.get("lines", ())]
    if skipped:
        more.append(f"{count(skipped, 'file')} too large to search")
    return Found(lines, notes + more)


def render(query: Query, found: Found) -> str:
    """The answer's text: the same for both ways of searching."""
    rows: list[str] = []
    matches, files = 0, set()
    last: Line | None = None
    for line in found.lines:
        if line.matched and matches == query.limit:
            found.notes.append("there are more: narrow the search or set max_results")
            break
        if query.context and last and (last.path, last.number + 1) != (line.path, line.number):
            rows.append("--")
        last = line
        matches += line.matched
        files.add(line.path)
        text = line.text if len(line.text) <= LINE_WIDTH else line.text[:LINE_WIDTH] + "…"
        rows.append(
            f"{line.path}{':' if line.matched else '-'}{line.number}"
            f"{':' if line.matched else '-'} {text}"
        )
    total = f"{count(matches, 'match')} in {count(len(files), 'file')}"
    rows.append(total if matches else f"No matches for {query.pattern}")
    rows[-1] = "; ".join([rows[-1], *found.notes])
    return "\n".join(rows)


def _records(
    command: list[str], directory: Path, asked: bytes, context: ToolContext
) -> tuple[list[dict[str, Any]], list[str], int]:
    """Run a searching process: its JSON lines, notes on what is missing, its exit code."""
    output = Output(None, head=OUTPUT_LIMIT, tail=0)
    try:
        job = context.processes.start(
            command, directory, timeout=TIME_LIMIT_S, input_bytes=asked, output=output
        )
    except OSError as error:
        raise ToolError(f"cannot search: {error.strerror or error}") from error
    if not job.wait(context.cancel, lambda _text: job.stop() if output.is_cut else None):
        raise ToolError("interrupted")
    assert job.ended is not None
    data = output.beginning()
    whole = data[: data.rfind(b"\n") + 1]
    records = [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
    notes = []
    if output.is_cut:
        notes.append("there are more: narrow the search")
    elif job.ended.how == "timed out":
        notes.append(f"stopped after {TIME_LIMIT_S} s: narrow the search")
    return records, notes, job.ended.code


def _ripgrep_lines(
    query: Query, records: list[dict[str, Any]], is_directory: bool
) -> Iterator[Line]:
    prefix = _prefix(query.place)
    pending: list[Line] = []
    for record in records:
        data = record["data"]
        match record["type"]:
            case "begin":
                pending = []
            case "match" | "context":
                name = _text(data["path"]).removeprefix("./")
                path = printable(prefix + name if is_directory else query.place.shown)
                text = shown_line(_text(data["lines"]).removesuffix("\n"))
                pending.append(Line(path, data["line_number"], text, record["type"] == "match"))
            case "end":
                is_binary = data["binary_offset"] is not None
                if pending and not is_binary and query.wants(pending[0].path):
                    yield from pending
                pending = []
    yield from pending  # of a file that ripgrep was stopped in


def _candidates(query: Query, context: ToolContext) -> tuple[list[tuple[str, Path]], list[str]]:
    """(shown, real) of every file to search, and a note when the walk was stopped."""
    if not query.place.real.is_dir():
        return [(query.place.shown, query.place.real)], []
    until = time.monotonic() + TIME_LIMIT_S
    prefix = _prefix(query.place)
    found: list[tuple[str, Path]] = []
    for entry in walk(query.place.real):
        if context.cancel.is_set():
            raise ToolError("interrupted")
        if time.monotonic() > until:
            return found, [f"stopped listing files after {TIME_LIMIT_S} s: narrow the search"]
        if entry.is_file and query.wants(prefix + entry.path):
            found.append((prefix + entry.path, entry.full))
    return found, []


def _prefix(place: Place) -> str:
    return "" if place.shown == "." else place.shown + "/"


def _json(asked: dict[str, Any]) -> bytes:
    return json.dumps(asked).encode()


def _text(value: dict[str, str]) -> str:
    if "text" in value:
        return value["text"]
    return base64.b64decode(value["bytes"]).decode("utf-8", "surrogateescape")


def _without_braces(glob: str) -> Iterator[str]:
    """`*.{ts,tsx}` as `*.ts` and `*.tsx`."""
    group = re.search(r"\{([^{}]*)\}", glob)
    if not group:
        yield glob
        return
    for choice in group.group(1).split(","):
        yield from _without_braces(glob[: group.start()] + choice + glob[group.end() :])
