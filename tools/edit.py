"""The tool `edit`: an exact text replaced by another, in one place or in all.

In: the text to find and the text to put there. Out: one line of what changed, and the lines around
it. Changes exactly the bytes of the matches; encoding, byte order mark, line ends, mode, links and
the end of the file stay as they were.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ds4_agent.tools.api import tool
from ds4_agent.tools.difference import unified
from ds4_agent.tools.effects import effect_of_change
from ds4_agent.tools.files import count, read_file, text_of
from ds4_agent.tools.text import Text, encode, lines, shown
from ds4_agent.tools.types import ToolContext, ToolError, ToolResult
from ds4_agent.tools.workspace import FileBytes, Place, Workspace

LISTED = 10  # line numbers named in a result
AROUND = 2  # lines shown before and after the first change
EXCERPT = 12  # lines shown in all
COMPARED = 4000  # lines in which the nearest text is looked for
SHOWN_WIDTH = 160


@dataclass(frozen=True)
class Span:
    """One match: characters [start, end) of the text, beginning on `line` (from 1)."""

    start: int
    end: int
    line: int


@tool(effect="edit", classify=effect_of_change)
def edit(
    context: ToolContext,
    path: str,
    old: str,
    new: str,
    replace_all: bool = False,
    whole_word: bool = False,
) -> ToolResult:
    """Replace an exact text in a file.

    path: file, relative to the workspace
    old: the text to replace, exactly as in the file; must occur once unless replace_all
    new: the text to put in its place
    replace_all: replace every occurrence
    whole_word: count old only where it is not part of a longer identifier (for renames)
    """
    workspace = context.workspace
    place = workspace.locate(path)
    if not old:
        raise ToolError("old is empty; use write to create a file")
    if old == new:
        raise ToolError("old and new are the same text")
    file = read_file(workspace, place)
    text = text_of(place, file)
    spans = find(text, old, whole_word=whole_word)
    _refuse_stale(workspace, place, file, text, spans, old)
    if not spans:
        raise ToolError(f"old text not found in {place.shown}{_nearest(text, old, whole_word)}")
    if len(spans) > 1 and not replace_all:
        raise ToolError(
            f"old text occurs {len(spans)} times in {place.shown} ({_lines_of(spans)}); "
            "give more of it or set replace_all"
        )
    after = replaced(text, spans, new)
    workspace.write(place, _encoded(place, text, after), base=file)
    changes = f"{count(len(spans), 'replacement')}, {_lines_of(spans)}"
    excerpt = "\n".join(_excerpt(text, after, spans, new))
    return ToolResult(
        f"Edited {place.shown}: {changes}\n{excerpt}".rstrip("\n"),
        diff=unified(place.shown, text.content, after),
    )


def find(text: Text, old: str, *, whole_word: bool = False) -> list[Span]:
    """Every match of `old`, none overlapping. A line end of `old` matches either line end."""
    pieces = [re.escape(piece) for piece in old.replace("\r\n", "\n").split("\n")]
    pattern = r"\r?\n".join(pieces)
    if whole_word:
        before = r"(?<!\w)" if _is_word(old[0]) else ""
        after = r"(?!\w)" if _is_word(old[-1]) else ""
        pattern = before + pattern + after
    spans: list[Span] = []
    line, counted = 1, 0
    for match in re.finditer(pattern, text.content):
        line += text.content.count("\n", counted, match.start())
        counted = match.start()
        spans.append(Span(match.start(), match.end(), line))
    return spans


def replaced(text: Text, spans: list[Span], new: str) -> str:
    """The text with `new` in place of each span, with the line ends the file has there."""
    parts: list[str] = []
    end = 0
    for span in spans:
        parts.append(text.content[end : span.start])
        parts.append(_with_line_ends(text, span, new))
        end = span.end
    parts.append(text.content[end:])
    return "".join(parts)


def _with_line_ends(text: Text, span: Span, new: str) -> str:
    if text.newline == "\n":
        return new  # a file without CRLF gets exactly what was given
    content = text.content
    own = content[span.start : span.end]
    if "\n" in own:
        has_crlf = "\r\n" in own
    else:  # what ends the line that the match stands in, or the one before
        end = content.find("\n", span.end)
        end = end if end >= 0 else content.rfind("\n", 0, span.start)
        has_crlf = end > 0 and content[end - 1] == "\r"
    plain = new.replace("\r\n", "\n")
    return plain.replace("\n", "\r\n") if has_crlf else plain


def _refuse_stale(
    workspace: Workspace, place: Place, file: FileBytes, text: Text, spans: list[Span], old: str
) -> None:
    """Refuse once when the file is not what the agent last saw, and show how it is now."""
    if not workspace.has_changed(place, file.data):
        return
    workspace.remember(place, file.data)
    first = spans[0].line if spans else _nearest_line(text, old) or 1
    height = old.count("\n") + 1
    found = lines(text.content)
    start = max(1, first - AROUND)
    stop = min(len(found), start + EXCERPT - 1, first + height - 1 + AROUND)
    now = "\n".join(shown(line) for line in found[start - 1 : stop])
    raise ToolError(
        f"{place.shown} changed since it was read and was not edited; "
        f"lines {start}-{stop} are now:\n{now}"
    )


def _encoded(place: Place, text: Text, after: str) -> bytes:
    try:
        return encode(text, after)
    except UnicodeEncodeError as error:
        character = after[error.start]
        raise ToolError(
            f"new holds {character!r}, which {place.shown} cannot: it is {text.codec}"
        ) from error


def _excerpt(text: Text, after: str, spans: list[Span], new: str) -> list[str]:
    first = spans[0].line
    height = _with_line_ends(text, spans[0], new).count("\n") + 1
    found = lines(after)
    start = max(1, first - AROUND)
    around = found[start - 1 : first - 1 + height + AROUND]
    if len(around) > EXCERPT:
        around = [*around[: EXCERPT - 1], "…"]
    return [shown(line) for line in around]


def _lines_of(spans: list[Span]) -> str:
    numbers = list(dict.fromkeys(span.line for span in spans))
    named = ", ".join(map(str, numbers[:LISTED]))
    more = ", …" if len(numbers) > LISTED else ""
    return f"{'line' if len(numbers) == 1 else 'lines'} {named}{more}"


def _nearest(text: Text, old: str, whole_word: bool) -> str:
    if whole_word and (inside := find(text, old)):
        return f" as a whole word; it is part of a longer word in {_lines_of(inside)}"
    line = _nearest_line(text, old)
    if line is None:
        return ""
    content = shown(lines(text.content)[line - 1]).strip()
    if len(content) > SHOWN_WIDTH:
        content = content[: SHOWN_WIDTH - 1] + "…"
    return f"; the nearest is line {line}: {content}"


def _nearest_line(text: Text, old: str) -> int | None:
    """The line most like the first line of `old` that says anything, if one is alike at all."""
    wanted = next((line.strip() for line in old.splitlines() if line.strip()), "")[:500]
    best, best_ratio = None, 0.6
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    for number, line in enumerate(lines(text.content)[:COMPARED], 1):
        matcher.set_seq1(line.strip()[:500])
        if matcher.real_quick_ratio() <= best_ratio or matcher.quick_ratio() <= best_ratio:
            continue
        ratio = matcher.ratio()
        if ratio > best_ratio:
            best, best_ratio = number, ratio
    return best


def _is_word(character: str) -> bool:
    return re.match(r"\w", character) is not None
