"""A unified diff of two texts, for the screen and the approval dialog.

In: a path and the text before and after. Out: diff text with `a/` and `b/` names, "" when equal.
Bounded work: what the two have in common at both ends is skipped before anything is compared.
"""

from __future__ import annotations

import difflib

CONTEXT = 3
COMPARED = 2000  # lines between the ends that are compared; more are shown as replaced whole


def unified(path: str, before: str, after: str) -> str:
    """The unified diff, or "" when nothing changed."""
    if before == after:
        return ""
    old, new = _lines(before), _lines(after)
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    middle_old, middle_new = old[start : len(old) - end], new[start : len(new) - end]
    before_lines = old[max(0, start - CONTEXT) : start]
    after_lines = old[len(old) - end :][:CONTEXT]
    header = f"--- {'a/' + path if old else '/dev/null'}\n+++ b/{path}\n"
    if max(len(middle_old), len(middle_new)) > COMPARED:
        hunk = [" " + line for line in before_lines]
        hunk += ["-" + line for line in middle_old] + ["+" + line for line in middle_new]
        hunk += [" " + line for line in after_lines]
        return header + "".join(map(_ended, hunk))
    offset = start - len(before_lines)
    hunks = difflib.unified_diff(
        before_lines + middle_old + after_lines, before_lines + middle_new + after_lines, n=CONTEXT
    )
    body = [_moved(line, offset) for line in list(hunks)[2:]]
    return header + "".join(map(_ended, body))


def _lines(text: str) -> list[str]:
    """Lines with their ends, cut at "\\n" only: a form feed ends no line of a diff."""
    found = text.split("\n")
    return [line + "\n" for line in found[:-1]] + ([found[-1]] if found[-1] else [])


def _common(one: list[str], other: list[str]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def _moved(line: str, offset: int) -> str:
    """A hunk's header speaks of the whole file, not of the part that was compared."""
    if not line.startswith("@@"):
        return line
    _, old, new, _ = line.split(" ", 3)
    return f"@@ {_shift(old, offset)} {_shift(new, offset)} @@\n"


def _shift(span: str, offset: int) -> str:
    first, comma, length = span[1:].partition(",")
    return f"{span[0]}{int(first) + offset}{comma}{length}"


def _ended(line: str) -> str:
    return line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
