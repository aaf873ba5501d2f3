"""A change to a file, line by line, as rows for the transcript and for a question.

In: lines of a change, what file they belong to, how wide a row is. Out: rows with numbers, marks
and the colours of the file's language; no widget, no state.
"""

from collections.abc import Iterator, Sequence

from textual.content import Content

from ds4_agent.tui.code import code_lines
from ds4_agent.tui.describe import DiffLine

__all__ = ["INDENT", "change_rows"]

INDENT = 4  # cells before a call's detail
_MARK_STYLE = {"-": "$text-error", "+": "$text-success", " ": "", "@": "$faint"}
_BAND = {"-": "on $error 14%", "+": "on $success 14%"}


def change_rows(lines: Sequence[DiffLine], path: str = "", width: int = 0) -> list[Content]:
    """The lines of a change, each with its number, its mark and the colours of `path`'s language,
    indented like a tool's detail; what was added or removed is a band of `width` cells."""
    digits = max((len(str(line.number)) for line in lines if line.number), default=0)
    rows = []
    for line, code in zip(lines, _coloured(lines, path), strict=True):
        number = f"{line.number or '':>{digits}} " if digits else ""
        mark = "" if line.mark == "@" else line.mark
        text = Content.assemble((f"{mark} ", _MARK_STYLE[line.mark]), code)
        if band := _BAND.get(line.mark):
            rest = width - INDENT - len(number) - text.cell_length
            text = text.pad_right(max(0, rest)).stylize_before(band)
        rows.append(Content.assemble(" " * INDENT, (number, "$faint"), text))
    return rows


def _coloured(lines: Sequence[DiffLine], path: str) -> Iterator[Content]:
    """The text of each line as code. What goes and what comes are two texts of their own."""
    removed = _code((line.text for line in lines if line.mark in "- "), path)
    added = _code((line.text for line in lines if line.mark in "+ "), path)
    for line in lines:
        if line.mark == "@":
            yield Content.styled(line.text, "$faint")
            continue
        old = next(removed) if line.mark != "+" else None
        new = next(added) if line.mark != "-" else None
        shown = new if new is not None else old
        assert shown is not None
        yield shown.expand_tabs(4)


def _code(lines: Iterator[str], path: str) -> Iterator[Content]:
    return iter(code_lines("\n".join(lines), path=path))
