"""The prompt: a multi-line input that grows, with history, completion and marks for what is pasted.

Enter sends, Shift+Enter or Ctrl+J starts a new line, Up and Down at the edges walk the history, Tab
completes, Ctrl+G opens the editor. Pasted text is made visible first, so what is read is what is
sent. It tells the app by messages and knows nothing about the agent.
"""

import asyncio
import os
from collections.abc import Sequence

from textual import events, on
from textual.app import ComposeResult, SuspendNotSupported
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.document._document import Location
from textual.message import Message
from textual.widgets import Static, TextArea

from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.errors import UsageError
from ds4_agent.tui.complete import Files, Wish, commands_like, fuzzy, replacement, wish_at
from ds4_agent.tui.completions import Completions
from ds4_agent.tui.editor import edited
from ds4_agent.tui.pasted import Pasted
from ds4_agent.tui.writing import Writing

__all__ = ["PromptBox", "PromptInput"]

OFFERED = 40  # names
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

    class HistoryWished(Message):
        """The user wants to search the earlier prompts (Ctrl+R)."""

    def __init__(self, writing: Writing, completions: Completions, placeholder: str = "") -> None:
        super().__init__(
            soft_wrap=True,
            show_line_numbers=False,
            tab_behavior="focus",
            highlight_cursor_line=False,
            placeholder=Content(placeholder),
            id="prompt",
        )
        self._writing = writing
        self._completions = completions
        self._pasted = Pasted()
        self._place: int | None = None  # index into the history; None is the draft
        self._draft = ""
        self._put = ""  # what was put here as a whole: nothing is completed in it

    async def _on_key(self, event: events.Key) -> None:
        # Here and not as bindings: an action runs behind keys that were typed after its own.
        if not self._complete(event.key) and not await self._act(event.key):
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    async def _act(self, key: str) -> bool:
        """Carry out a key of this input's own; False if it is none."""
        if key == "enter":
            self._send()
        elif key in _NEWLINE:
            self.insert("\n")
        elif key == "ctrl+d" and not self.text:
            self.post_message(self.Ended())
        elif key == "ctrl+r":
            self.post_message(self.HistoryWished())
        elif key == "ctrl+g":
            self._edit()
        elif key == "tab" and wish_at(self._before) is not None:
            await self._offer()
        elif key == "up" and self.cursor_at_first_line:
            self._recall(-1)
        elif key == "down" and self.cursor_at_last_line:
            self._recall(1)
        else:
            return False
        return True

    async def _on_paste(self, event: events.Paste) -> None:
        # Terminals send line ends as carriage returns. Textual hands the event on to `TextArea`.
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        event.text = self._pasted.mark(visible(text))

    def action_delete_left(self) -> None:
        """Backspace; a mark goes as a whole."""
        mark = self._pasted.ends(self._before) if self.selection.is_empty else ""
        if mark:
            row, column = self.cursor_location
            self.delete((row, column - len(mark)), (row, column))
        else:
            super().action_delete_left()

    def replace_all(self, text: str) -> None:
        """Make `text` the whole input, the cursor behind it."""
        self._put = text
        self._pasted.forget()
        self.text = text
        self.move_cursor(self.document.end)
        self._place = None
        self._completions.hide()

    def _send(self) -> None:
        text = self._pasted.whole(self.text).rstrip()
        if not text.strip():
            return
        self.replace_all("")
        self.post_message(self.Submitted(text))

    def _recall(self, step: int) -> None:
        """Walk the history; behind its end lies what was being written."""
        entries = self._writing.history.entries
        now = len(entries) if self._place is None else self._place
        place = now + step
        if not 0 <= place <= len(entries):
            return
        if self._place is None:
            self._draft = self._pasted.whole(self.text)
        self.replace_all(self._draft if place == len(entries) else entries[place])
        self._place = None if place == len(entries) else place

    def _edit(self) -> None:
        """Write in the user's editor, which has the terminal until it ends."""
        text = self._pasted.whole(self.text)
        try:
            with self.app.suspend():
                text = visible(edited(text, os.environ))
        except (UsageError, SuspendNotSupported) as error:
            self.app.notify(visible(str(error)), severity="warning", markup=False)
        self.replace_all(text)

    # Completion

    def _complete(self, key: str) -> bool:
        """Use a key for the list, if it is open; False if it is none of its keys."""
        name, wish = self._completions.picked, self._completions.wish
        if name is None or wish is None:
            return False
        if key in ("up", "down"):
            self._completions.move(-1 if key == "up" else 1)
        elif key == "escape":
            self._completions.hide()
        elif key == "tab" or (key == "enter" and wish.query != name):
            self._accept(wish, name)
        else:
            return False
        return True

    def _accept(self, wish: Wish, name: str) -> None:
        before = self._before
        start = _location(before[: wish.start])
        self._completions.hide()
        self.replace(replacement(wish, name), start, _location(before))

    @on(TextArea.Changed)
    async def _changed(self) -> None:
        if self.text == self._put:
            self._completions.hide()
        else:
            self._put = ""
            await self._offer()

    async def _offer(self) -> None:
        """Show what the word at the cursor may become."""
        wish = wish_at(self._before)
        if wish is None:
            self._completions.hide()
        elif wish.kind == "command":
            said = dict(self._writing.names())
            names = commands_like(wish.query, list(said))
            self._completions.offer(wish, [(name, one_line(said[name])) for name in names])
        elif (files := self._writing.files) is not None:
            self._offer_files(wish, files.known)
            self.run_worker(self._look(files), group="files", exclusive=True)

    async def _look(self, files: Files) -> None:
        names = await asyncio.to_thread(files.look)
        wish = wish_at(self._before)
        if wish is not None and wish.kind == "file" and self.text != self._put:
            self._offer_files(wish, names)

    def _offer_files(self, wish: Wish, names: Sequence[str]) -> None:
        found = fuzzy(wish.query, names, OFFERED)
        self._completions.offer(wish, [(name, "") for name in found])

    @property
    def _before(self) -> str:
        """The text before the cursor."""
        return self.get_text_range((0, 0), self.cursor_location)


def _location(text: str) -> Location:
    """Where `text` ends."""
    row = text.count("\n")
    return row, len(text) - (text.rfind("\n") + 1)


class PromptBox(Vertical):
    """The input between two rules, with its mark, and what it may become above it."""

    DEFAULT_CSS = """
    PromptBox {
        height: auto;
        border-top: solid $panel-lighten-1;
        border-bottom: solid $panel-lighten-1;
        padding: 0 1;
        &:focus-within { border-top: solid $primary; border-bottom: solid $primary; }
        & > Horizontal { height: auto; }
        & #mark { width: 2; color: $primary; text-style: bold; }
        &.shell #mark { color: $text-warning; }
    }
    """

    def __init__(self, writing: Writing) -> None:
        super().__init__()
        self._writing = writing

    def compose(self) -> ComposeResult:
        completions = Completions()
        yield completions
        with Horizontal():
            yield Static(Content("›"), id="mark")
            yield PromptInput(self._writing, completions, "Ask for a change, @file, or /help")

    @on(TextArea.Changed)
    def _mark_shell(self, event: TextArea.Changed) -> None:
        self.set_class(event.text_area.text.startswith("!"), "shell")
