"""The prompt: a multi-line input that grows, with the history of this run.

Enter sends, Shift+Enter or Ctrl+J starts a new line, Up and Down at the edges walk the history.
Pasted text is made visible first, so what is read is what is sent. It tells the app by messages
and knows nothing about the agent.
"""

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Static, TextArea

from ds4_agent.agent.display import visible

__all__ = ["PromptBox", "PromptInput"]

_NEWLINE = ("shift+enter", "ctrl+j", "alt+enter", "ctrl+enter")


class PromptInput(TextArea):
    """The text being written."""

    DEFAULT_CSS = """
    PromptInput {
        height: auto;
        max-height: 12;
        width: 1fr;
        border: none;
        padding: 0;
        scrollbar-size-vertical: 0;
        background: transparent;
        &:focus { border: none; background-tint: transparent; }
        & .text-area--cursor-line { background: transparent; }
        & .text-area--placeholder { color: $faint; }
    }
    """

    class Submitted(Message):
        """The user sent `text`."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Ended(Message):
        """The user typed the end of the input (Ctrl+D) where nothing was written."""

    def __init__(self, placeholder: str = "") -> None:
        super().__init__(
            soft_wrap=True,
            show_line_numbers=False,
            tab_behavior="focus",
            highlight_cursor_line=False,
            placeholder=Content(placeholder),
            id="prompt",
        )
        self._history: list[str] = []
        self._place = 0  # index into the history; its length is the draft
        self._draft = ""

    async def _on_key(self, event: events.Key) -> None:
        # Here and not as bindings: an action runs behind keys that were typed after its own.
        if event.key == "enter":
            self._send()
        elif event.key in _NEWLINE:
            self.insert("\n")
        elif event.key == "ctrl+d" and not self.text:
            self.post_message(self.Ended())
        elif event.key == "up" and self.cursor_at_first_line:
            self._recall(-1)
        elif event.key == "down" and self.cursor_at_last_line:
            self._recall(1)
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        event.text = visible(event.text).replace("\r", "\n")
        await super()._on_paste(event)

    def replace_all(self, text: str) -> None:
        """Make `text` the whole input, the cursor behind it."""
        self.text = text
        self.move_cursor(self.document.end)
        self._place = len(self._history)

    def _send(self) -> None:
        text = self.text.strip()
        if not text:
            return
        if not self._history or self._history[-1] != text:
            self._history.append(text)
        self.replace_all("")
        self.post_message(self.Submitted(text))

    def _recall(self, step: int) -> None:
        """Walk the history; behind its end lies what was being written."""
        place = self._place + step
        if not 0 <= place <= len(self._history):
            return
        if self._place == len(self._history):
            self._draft = self.text
        self.replace_all(self._draft if place == len(self._history) else self._history[place])
        self._place = place


class PromptBox(Horizontal):
    """The input between two rules, with its mark."""

    DEFAULT_CSS = """
    PromptBox {
        height: auto;
        border-top: solid $panel-lighten-1;
        border-bottom: solid $panel-lighten-1;
        padding: 0 1;
        &:focus-within { border-top: solid $primary; border-bottom: solid $primary; }
        & > #mark { width: 2; color: $primary; text-style: bold; }
    }
    """

    def compose(self) -> ComposeResult:
        yield Static(Content("›"), id="mark")
        yield PromptInput("Ask for a change, or /help")
