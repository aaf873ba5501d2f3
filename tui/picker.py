"""A list to choose from, in place of the input.

In: a title and rows of displayable text. Out: one `Picked` message, with the row's index or None.
Keys: arrows, PageUp and PageDown, Home and End, Enter; Esc chooses nothing. What is typed leaves
only the rows that hold every word of it.
"""

from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

__all__ = ["Picker"]

LEAST_ROWS = 3


class Picker(Vertical, can_focus=True):
    """One choice. `about` says what it is for, to whoever put it."""

    DEFAULT_CSS = """
    Picker {
        height: auto;
        padding: 0 1;
        border-top: solid $primary;
        border-bottom: solid $primary;
        border-title-color: $text-primary;
        border-title-style: bold;
        & > #rows { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
        & > #keys { color: $faint; }
    }
    """

    class Picked(Message):
        """What was chosen; None: nothing."""

        def __init__(self, picker: "Picker", index: int | None) -> None:
            super().__init__()
            self.picker = picker
            self.index = index

    def __init__(self, about: str, title: str, rows: Sequence[str], first: int = 0) -> None:
        super().__init__()
        self.about = about
        self._title = title
        self._all = tuple(rows)
        self._query = ""
        self._rows = tuple(enumerate(self._all))  # those shown, each with its index
        self._choice = first  # among those
        self._first = 0  # row shown at the top

    def compose(self) -> ComposeResult:
        yield Static(Content(""), id="rows")
        yield Static(Content(""), id="keys")

    def on_mount(self) -> None:
        self.border_title = Content(f" {self._title} ")  # a str would be read as markup
        self.fit()
        self.focus()

    def fit(self) -> None:
        """Show as many rows as the screen has room for."""
        self._paint()

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        last = len(self._rows) - 1
        moves = {"up": -1, "down": 1, "home": -last, "end": last}
        if event.key == "enter":
            self._pick()
        elif event.key == "escape":
            self.post_message(self.Picked(self, None))
        elif event.key in moves:
            self.move(moves[event.key])
        elif event.key == "backspace":
            self._search(self._query[:-1])
        elif event.is_printable and event.character:
            self._search(self._query + event.character)

    def on_click(self, event: events.Click) -> None:
        """A click picks; a second one on the picked row chooses it."""
        if event.widget is None or event.widget.id != "rows":
            return
        row = self._first + int(event.y)
        if row == self._choice:
            self._pick()
        elif row < len(self._rows):
            self.move(row - self._choice)

    def _pick(self) -> None:
        if self._rows:
            self.post_message(self.Picked(self, self._rows[self._choice][0]))

    def _search(self, query: str) -> None:
        """Leave the rows that hold every word of `query`, in capitals or not."""
        self._query = query
        words = query.casefold().split()
        every = enumerate(self._all)
        self._rows = tuple(
            (index, row) for index, row in every if all(word in row.casefold() for word in words)
        )
        self._choice = self._first = 0
        self._paint()

    def move(self, rows: int) -> None:
        """Pick another row, at most the first or the last."""
        self._choice = max(0, min(self._choice + rows, len(self._rows) - 1))
        self._paint()

    def move_page(self, direction: int) -> None:
        self.move(direction * self._page)

    @property
    def _page(self) -> int:
        return max(LEAST_ROWS, self.app.size.height // 2 - 4)

    def _paint(self) -> None:
        page = self._page
        self._first = max(self._choice - page + 1, min(self._first, self._choice))
        self._first = max(0, min(self._first, len(self._rows) - page))
        lines = []
        for index in range(self._first, min(self._first + page, len(self._rows))):
            picked = index == self._choice
            text = f"{'›' if picked else ' '} {self._rows[index][1]}"
            lines.append(Content.styled(text, "bold $text-primary" if picked else ""))
        self.query_one("#rows", Static).update(Content("\n").join(lines))
        place = f"{self._choice + 1} of {len(self._rows)} · " if len(self._rows) > page else ""
        wanted = f"search: {self._query}▏" if self._query else "type to search"
        keys = f"{wanted} · {place}↑↓ Enter · Esc leaves"
        self.query_one("#keys", Static).update(Content(keys))
