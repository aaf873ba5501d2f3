"""A large text that was pasted stands in the input as one short mark, and is sent as what it is.

In: pasted text, already displayable. Out: the mark, and the whole text of an input with marks.
"""

import re

from ds4_agent.tui.describe import plural

__all__ = ["Pasted"]

LINES, CHARACTERS = 8, 1000  # more of either is shown as a mark


class Pasted:
    """The marks of one input. A mark is unique in the run."""

    def __init__(self) -> None:
        self._number = 0
        self._texts: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """What to put into the input: a mark, or a short text itself."""
        lines = text.rstrip("\n").count("\n") + 1
        if lines <= LINES and len(text) <= CHARACTERS:
            return text
        self._number += 1
        size = plural(lines, "line") if lines > LINES else plural(len(text), "character")
        mark = f"[Pasted #{self._number}: {size}]"
        self._texts[mark] = text
        return mark

    def whole(self, text: str) -> str:
        """`text` with what its marks stand for; what was pasted is not looked into."""
        if not self._texts:
            return text
        pattern = "|".join(map(re.escape, self._texts))
        return re.sub(pattern, lambda match: self._texts[match[0]], text)

    def ends(self, text: str) -> str:
        """The mark that `text` ends with, else ""."""
        return next((mark for mark in self._texts if text.endswith(mark)), "")

    def forget(self) -> None:
        """The input was sent or replaced."""
        self._texts.clear()
