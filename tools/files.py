"""The tools `read` and `write`.

In: paths and text of the model. Out: its text, or one line of what was written. Reads are bounded
and say so; a write is all or nothing.
"""

from __future__ import annotations

import difflib
import itertools
import posixpath

from ds4_agent.tools.api import tool
from ds4_agent.tools.difference import unified
from ds4_agent.tools.effects import effect_of_change
from ds4_agent.tools.ignore import walk
from ds4_agent.tools.text import Text, decode, lines, shown
from ds4_agent.tools.types import ToolContext, ToolError, ToolResult
from ds4_agent.tools.workspace import FileBytes, MissingFileError, Place, Workspace

DEFAULT_LINES = 500
SHOWN_LIMIT = 96 * 1024  # characters of one read
LOOKED_AT = 3000  # names in which a mistyped path is looked for
SMALL = 60  # lines of a file that may be replaced unread


@tool(effect="read")
def read(
    context: ToolContext, path: str, start_line: int = 1, max_lines: int = DEFAULT_LINES
) -> ToolResult:
    """Read lines of a text file.

    path: file, relative to the workspace
    start_line: first line, counted from 1
    max_lines: how many lines at most (default 500)
    """
    if start_line < 1 or max_lines < 1:
        raise ToolError("start_line and max_lines must be at least 1")
    place = context.workspace.locate(path)
    file = read_file(context.workspace, place)
    text = text_of(place, file)
    context.workspace.remember(place, file.data)
    found = lines(text.content)
    if not found:
        return ToolResult(f"{place.shown} is empty")
    if start_line > len(found):
        raise ToolError(
            f"{place.shown} has {count(len(found), 'line')}; start_line={start_line} is past it"
        )
    return ToolResult(_page(place, text, found, start_line, max_lines))


@tool(effect="edit", classify=effect_of_change)
def write(context: ToolContext, path: str, content: str) -> ToolResult:
    """Create a file, or replace all of a file; use edit to change a part.

    path: file, relative to the workspace; missing directories are made
    content: the whole new content
    """
    workspace = context.workspace
    place = workspace.locate(path)
    if path.endswith("/"):
        raise ToolError(f"{path} names a directory; give the path of a file")
    try:
        data = content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ToolError(f"content holds a lone surrogate at character {error.start}") from error
    try:
        base: FileBytes | None = workspace.read(place)
    except MissingFileError:
        base = None
    if base is not None:
        _refuse_unread(workspace, place, base)
    workspace.write(place, data, base=base)
    verb = "Created" if base is None else "Overwrote"
    sizes = f"{count(len(lines(content)), 'line')}, {count(len(data), 'byte')}"
    before = decode(base.data) if base is not None else None
    diff = unified(place.shown, before.content if before else "", content)
    return ToolResult(f"{verb} {place.shown} ({sizes})", diff=diff)


def read_file(workspace: Workspace, place: Place) -> FileBytes:
    """`workspace.read`, where a path that names nothing gets the name that may be meant."""
    try:
        return workspace.read(place)
    except MissingFileError:
        meant = _nearest_path(workspace, place)
        hint = f"; did you mean {meant}?" if meant else ""
        raise MissingFileError(f"{place.shown} does not exist{hint}") from None


def text_of(place: Place, file: FileBytes) -> Text:
    """The decoded file. Raises ToolError for a binary one."""
    text = decode(file.data)
    if text is None:
        raise ToolError(f"{place.shown} is a binary file ({count(len(file.data), 'byte')})")
    return text


def count(number: int, noun: str) -> str:
    """`1 line`, `2 lines`, `2 matches`."""
    plural = noun + ("es" if noun.endswith(("ch", "sh", "s")) else "s")
    return f"{number} {noun if number == 1 else plural}"


def _page(place: Place, text: Text, found: list[str], start: int, limit: int) -> str:
    page = [shown(line) for line in found[start - 1 : start - 1 + limit]]
    size = itertools.accumulate(len(line) + 1 for line in page)
    fitting = sum(1 for total in size if total <= SHOWN_LIMIT)
    note = text.note
    if fitting == 0:
        note += f"; line {start} has {len(page[0])} characters, its first {SHOWN_LIMIT} are shown"
        page = [page[0][:SHOWN_LIMIT]]
    else:
        page = page[:fitting]
    last = start + len(page) - 1
    more = f"; continue with start_line={last + 1}" if last < len(found) else ""
    header = f"{place.shown}, lines {start}-{last} of {len(found)}{note}{more}"
    return "\n".join([header, *page])


def _refuse_unread(workspace: Workspace, place: Place, base: FileBytes) -> None:
    if workspace.has_changed(place, base.data):
        raise ToolError(f"{place.shown} changed since it was read; read it again before replacing")
    if workspace.was_seen(place):
        return
    size = base.data.count(b"\n") + 1
    if size > SMALL:
        raise ToolError(
            f"{place.shown} exists ({size} lines) and was not read; read it, or use edit"
        )


def _nearest_path(workspace: Workspace, place: Place) -> str | None:
    if not place.real.is_relative_to(workspace.root):
        return None
    entries = itertools.islice(walk(workspace.root), LOOKED_AT)
    paths = [entry.path for entry in entries if entry.is_file]
    name = posixpath.basename(place.shown)
    same = [path for path in paths if posixpath.basename(path) == name]
    if len(same) == 1:
        return same[0]
    close = difflib.get_close_matches(place.shown, paths, n=1, cutoff=0.75)
    return close[0] if close else None
