"""How the screen looks and what it refuses to draw: two themes and the last filter before the
terminal. The filter replaces what acts or hides in every segment, should anything have missed
`text.visible`; it costs a scan of the line and changes nothing else.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

from ds4_agent.agent.display import has_hidden

__all__ = ["DARK", "LIGHT", "FoundFilter", "VisibleFilter", "theme_for", "theme_named"]

# Beyond Textual's own names: `muted` for what is read second, `faint` for what need not be read,
# `code-*` for the words of a programming language.
_DARK_EXTRA = {
    "muted": "#959ca8",
    "faint": "#666d79",
    "code-comment": "#7d8590",
    "code-keyword": "#b69cf0",
    "code-string": "#a5c98b",
    "code-number": "#e5b567",
    "code-name": "#79b8ff",
    "code-builtin": "#6cc7c1",
    "scrollbar": "#343941",
    "scrollbar-hover": "#4a515c",
    "scrollbar-active": "#6ea8fe",
    "scrollbar-background": "#14161a",
    "scrollbar-background-hover": "#14161a",
    "scrollbar-background-active": "#14161a",
}
_LIGHT_EXTRA = {
    "muted": "#59636e",
    "faint": "#818b98",
    "code-comment": "#6a737d",
    "code-keyword": "#6b46c1",
    "code-string": "#2c6e35",
    "code-number": "#9a4b00",
    "code-name": "#1f53b5",
    "code-builtin": "#0a6c74",
    "scrollbar": "#d1d9e0",
    "scrollbar-hover": "#b6bfc8",
    "scrollbar-active": "#2458c5",
    "scrollbar-background": "#ffffff",
    "scrollbar-background-hover": "#ffffff",
    "scrollbar-background-active": "#ffffff",
}

_FOUND = Style(color="#14161a", bgcolor="#f2c55c", bold=True)

DARK = Theme(
    name="ds4-dark",
    primary="#6ea8fe",
    secondary="#9d8cf5",
    accent="#f2a65a",
    warning="#e5b567",
    error="#f07178",
    success="#7fce8f",
    foreground="#d7dae0",
    background="#14161a",
    surface="#191c21",
    panel="#22262d",
    dark=True,
    variables=_DARK_EXTRA,
)
LIGHT = Theme(
    name="ds4-light",
    primary="#2458c5",
    secondary="#6b46c1",
    accent="#b45309",
    warning="#9a6700",
    error="#c02637",
    success="#1a7f37",
    foreground="#1f2328",
    background="#ffffff",
    surface="#f6f8fa",
    panel="#eaeef2",
    dark=False,
    variables=_LIGHT_EXTRA,
)


def theme_for(environment: Mapping[str, str], chosen: str = "") -> str:
    """The theme's name: the one that was `chosen`, "dark" or "light"; else light where the terminal
    says that its background is (`COLORFGBG`)."""
    if chosen:
        return theme_named(chosen, "")
    background = environment.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT.name if background in ("7", "15") else DARK.name


def theme_named(name: str, now: str) -> str:
    """The theme that is "dark" or "light", or, of "", the one that is not shown now."""
    if name:
        return LIGHT.name if name == "light" else DARK.name
    return DARK.name if now == LIGHT.name else LIGHT.name


class VisibleFilter(LineFilter):
    """The backstop behind `text.visible`: U+FFFD for each character that acts or hides."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [_clean(segment) for segment in segments]


class FoundFilter(LineFilter):
    """Shows words that were looked for wherever a line holds them."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = re.compile(re.escape(words), re.IGNORECASE)

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        text = "".join(segment.text for segment in segments if not segment.control)
        cuts = [place for match in self._words.finditer(text) for place in match.span()]
        if not cuts:
            return segments
        marked: list[Segment] = []
        place = 0
        for segment in segments:
            if segment.control:
                marked.append(segment)
                continue
            end = place + len(segment.text)
            edges = [place, *(cut for cut in cuts if place < cut < end), end]
            for start, stop in pairwise(edges):
                is_found = bisect_right(cuts, start) % 2 == 1  # between a start and its end
                style = (segment.style or Style()) + _FOUND if is_found else segment.style
                marked.append(Segment(text[start:stop], style))
            place = end
        return marked


def _clean(segment: Segment) -> Segment:
    text, style, control = segment
    if control or (text.isascii() and text.isprintable()):
        return segment
    # A newline or a tab inside a painted line would move the cursor.
    text = text.replace("\n", " ").replace("\t", " ")
    if not has_hidden(text):
        return Segment(text, style)
    return Segment("".join("\ufffd" if has_hidden(c) else c for c in text), style)
