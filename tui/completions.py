"""The list above the input: what the word at the cursor may become.

In: a `Wish` and rows of displayable text. Out: nothing but what is picked; the input asks for it.
Takes no focus and no keys.
"""

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from ds4_agent.tui.complete import Wish

__all__ = ["ROWS", "Completions"]

ROWS = 8


class Completions(Static):
    """Names, `ROWS` of them in sight; hidden while there is nothing to complete."""

    DEFAULT_CSS = """
    Completions {
        display: none; height: auto; padding: 0 0 0 2;
        text-wrap: nowrap; text-overflow: ellipsis;
        &.open { display: block; }
    }
    """

    def __init__(self) -> None:
        super().__init__(Content(""))
        self.wish: Wish | None = None
        self._rows: Sequence[tuple[str, str]] = ()
        self._picked = 0
        self._first = 0  # row shown at the top

    @property
    def picked(self) -> str | None:
        """The name that is marked; None while the list is hidden."""
        return self._rows[self._picked][0] if self._rows else None

    def offer(self, wish: Wish, rows: Sequence[tuple[str, str]]) -> None:
        """Show these names, each with what is said about it; none hides the list."""
        now = self.picked
        self.wish, self._rows = wish, rows
        names = [name for name, _ in self._rows]
        self._picked = names.index(now) if now in names and wish.query else 0
        self._paint()

    def hide(self) -> None:
        if self._rows or self.wish is not None:
            self.wish, self._rows, self._picked = None, (), 0
            self._paint()

    def move(self, step: int) -> None:
        """Mark the next name, round and round."""
        self._picked = (self._picked + step) % max(len(self._rows), 1)
        self._paint()

    def _paint(self) -> None:
        self.set_class(bool(self._rows), "open")
        width = max((len(name) for name, _ in self._rows), default=0)
        sign = "/" if self.wish is not None and self.wish.kind == "command" else ""
        self._first = max(self._picked - ROWS + 1, min(self._first, self._picked))
        lines = []
        for index, (name, said) in enumerate(self._rows[self._first :][:ROWS], self._first):
            style = "bold $text-primary" if index == self._picked else "$muted"
            shown = f"{sign}{name:<{width if said else 0}}"
            lines.append(Content.assemble((shown, style), (f"  {said}" if said else "", "$faint")))
        self.update(Content("\n").join(lines))
