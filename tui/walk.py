"""Walking the transcript with the keys, in place of the input: look at a block, open it, copy it,
find one by its words.

In: a transcript, whose cursor it moves. Out: `Left`, with the character that was typed meanwhile,
and `Copied`. Typing anything that is no key of the walk goes back to the prompt.
"""

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from ds4_agent.tui.describe import plural
from ds4_agent.tui.look import FoundFilter
from ds4_agent.tui.transcript import Transcript

__all__ = ["WalkPanel"]

WALKING = "↑↓ walk · Enter opens · c copies · / finds · Esc back to the prompt"
FINDING = "↑↓ other places · Enter, Esc stay at this one"
_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -8, "pagedown": 8}
FAR = 1_000_000


class WalkPanel(Vertical, can_focus=True):
    """One walk. `finds`: it begins with words to find."""

    DEFAULT_CSS = """
    WalkPanel {
        height: auto;
        padding: 0 1;
        border-top: solid $accent;
        border-bottom: solid $accent;
        border-title-color: $text-accent;
        border-title-style: bold;
        & > #words { display: none; border: none; height: 1; padding: 0; background: transparent; }
        & > #keys { color: $muted; }
        &.finding > #words { display: block; }
    }
    """

    class Left(Message):
        """The walk is over; `character` was meant for the prompt."""

        def __init__(self, character: str = "") -> None:
            super().__init__()
            self.character = character

    class Copied(Message):
        """The reader wants this text in the clipboard."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, transcript: Transcript, *, finds: bool = False) -> None:
        super().__init__()
        self._transcript = transcript
        self._finds_first = finds
        self._found: int | None = None

    def compose(self) -> ComposeResult:
        yield Input(placeholder="words to find", id="words")
        yield Static(Content(""), id="keys")

    async def on_mount(self) -> None:
        if self._finds_first:
            self.find()
            return
        self.focus()
        await self._transcript.move(0)
        self._paint()

    def find(self) -> None:
        """Ask for words."""
        self.add_class("finding")
        self.query_one(Input).focus()
        self._paint()

    async def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        if self.has_class("finding"):
            await self._key_while_finding(event)
            return
        key = event.key
        if key in _STEPS:
            await self._transcript.move(_STEPS[key])
        elif key in ("home", "end"):
            await self._transcript.move(FAR if key == "end" else -FAR)
        elif key in ("enter", "space", "right", "left"):
            self._transcript.toggle()
        elif key == "c":
            self.post_message(self.Copied(self._transcript.text))
        elif key == "slash":
            self.find()
        elif key in ("escape", "tab"):
            self.post_message(self.Left())
        elif event.is_printable and event.character:
            self.post_message(self.Left(event.character))
        self._paint()

    async def _key_while_finding(self, event: events.Key) -> None:
        words = self.query_one(Input)
        if event.key in ("up", "down"):
            self._found = await self._transcript.find(words.value, -1 if event.key == "up" else 1)
        elif event.key in ("escape", "tab") and not words.value:
            self.post_message(self.Left())
        elif event.key in ("escape", "tab", "enter"):
            self.remove_class("finding")
            self.focus()
        self._paint()

    def on_unmount(self) -> None:
        self._show_found("")

    def _show_found(self, words: str) -> None:
        """Show the words on the screen; "": no longer."""
        self.app._filters[:] = [f for f in self.app._filters if not isinstance(f, FoundFilter)]
        if words:
            self.app._filters.append(FoundFilter(words))
        self.app.refresh(layout=True)

    @on(Input.Changed)
    async def _look(self, message: Input.Changed) -> None:
        message.stop()
        self._show_found(message.value)
        self._found = await self._transcript.find(message.value, 0) if message.value else None
        self._paint()

    @on(Input.Submitted)
    def _stay(self, message: Input.Submitted) -> None:
        message.stop()
        self.remove_class("finding")
        self.focus()
        self._paint()

    def _paint(self) -> None:
        at, count = self._transcript.place
        place = f" · {at} of {count}" if at else ""
        finding = self.has_class("finding")
        found = ""
        if finding and self._found is not None:
            found = f"in {plural(self._found, 'block')} · " if self._found else "not found · "
        self.border_title = Content(f" {'Find' if finding else 'Transcript'}{place} ")
        self.query_one("#keys", Static).update(Content(found + (FINDING if finding else WALKING)))
