"""Reading lines from a terminal: with prompt_toolkit, or with nothing but the terminal's own line
editing where not even a cursor can be moved.

In: a mark to show. Out: a line of text, EOFError or KeyboardInterrupt. `stop` makes a read under
way raise something else, from a signal handler or another thread.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import History as PromptHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.errors import UsageError
from ds4_agent.tui.complete import commands_like, fuzzy, replacement, wish_at
from ds4_agent.tui.editor import edited
from ds4_agent.tui.history import History
from ds4_agent.tui.writing import Writing

__all__ = ["DumbLines", "Lines", "PromptLines"]


OFFERED = 40  # names
NOTE_EVERY = 1.0  # seconds between two states of what stands below the prompt
LOOK_EVERY = 0.1  # seconds between two looks for news


class Lines(Protocol):
    """A way to read lines. Used from the main thread, except `stop`."""

    def read(self, mark: Callable[[], str], draft: str = "") -> str:
        """A prompt, possibly of several lines, with history. `draft` stands there already."""
        ...

    def typed(self) -> str:
        """A whole line that was typed while nothing was read, "" where there is none."""
        ...

    def ask(self, question: str) -> str:
        """One line in answer to a question, without history."""
        ...

    def stop(self, why: BaseException) -> bool:
        """Make the read under way raise `why`, the terminal put back first; False if none is."""
        ...

    def note(self, progress: str) -> None:
        """Have this stand below the prompt while one is read, "" for nothing. From any thread."""
        ...

    def tell_soon(self) -> None:
        """Have `tell` say its news above the prompt being read, if one is. From any thread."""
        ...


class PromptLines:
    """prompt_toolkit's line editing. `on_mode` is called for Shift+Tab; `writing` has the history
    and what can be completed; `tell` prints the news there are, and is called in the main thread.
    """

    def __init__(
        self,
        term: str,
        on_mode: Callable[[], None],
        writing: Writing,
        tell: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._noted_at = -NOTE_EVERY
        output = _QuietOutput.from_pty(sys.stdout, term)
        self._prompt: PromptSession[str] = PromptSession(
            output=output,
            key_bindings=_keys(on_mode),
            enable_suspend=True,
            prompt_continuation="  ",
            history=_Kept(writing.history),
            completer=_Completer(writing),
            complete_while_typing=False,  # a list that comes and goes is hard to listen to
            complete_in_thread=True,
            style=Style([("bottom-toolbar", "noreverse")]),
        )
        self._question: PromptSession[str] = PromptSession(output=output)

    def read(self, mark: Callable[[], str], draft: str = "") -> str:
        # From `pre_run` on `tell_soon` finds a prompt: no news can come in between.
        return self._prompt.prompt(mark, default=draft, pre_run=self._tell)

    def typed(self) -> str:
        return _typed()

    def ask(self, question: str) -> str:
        return self._question.prompt(question)

    def stop(self, why: BaseException) -> bool:
        for session in (self._prompt, self._question):
            app = session.app
            if app.is_running and app.loop is not None and not app.is_done:
                app.loop.call_soon_threadsafe(partial(app.exit, exception=why))
                return True
        return False

    def note(self, progress: str) -> None:
        now = self._clock()
        if progress and now - self._noted_at < NOTE_EVERY:
            return
        self._noted_at = now
        self._prompt.bottom_toolbar = one_line(progress) or None
        if self._prompt.app.is_running:
            self._prompt.app.invalidate()

    def tell_soon(self) -> None:
        app = self._prompt.app
        if app.is_running and app.loop is not None:
            app.loop.call_soon_threadsafe(partial(run_in_terminal, self._tell), context=app.context)


class DumbLines:
    """The terminal's own line editing: not one escape sequence. `tell` prints the news there are,
    below the mark; False where there are none."""

    def __init__(self, tell: Callable[[], bool]) -> None:
        self._tell = tell
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")

    def read(self, mark: Callable[[], str], draft: str = "") -> str:
        told = True
        while told or not select.select([sys.stdin], [], [], LOOK_EVERY)[0]:
            if told:
                offer = f"[Enter sends: {one_line(draft)}] " if draft else ""
                print(f"{mark()}{offer}", end="", flush=True)
            told = self._tell()
        return input() or draft

    def typed(self) -> str:
        return _typed()

    def ask(self, question: str) -> str:
        return input(question)

    def stop(self, why: BaseException) -> bool:
        return False

    def note(self, progress: str) -> None:
        pass  # it could only be written into what is being typed

    def tell_soon(self) -> None:
        pass  # it looks by itself


def _typed() -> str:
    """Outside of a prompt the terminal gathers whole lines, so that this never waits."""
    descriptor = sys.stdin.fileno()
    if not select.select([descriptor], [], [], 0)[0]:
        return ""
    try:
        return os.read(descriptor, 1 << 16).decode("utf-8", "replace").strip()
    except OSError:  # the terminal is gone, which a signal tells as well
        return ""


class _Kept(PromptHistory):
    """The directory's history for prompt_toolkit, which searches it. `Orders` adds to it."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._kept = history

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._kept.entries)

    def store_string(self, string: str) -> None:
        pass


class _Completer(Completer):
    """Tab: what the word at the cursor may become."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        wish = wish_at(document.text_before_cursor)
        if wish is None:
            return
        said: dict[str, str] = {}
        names: Iterable[str] = ()
        if wish.kind == "command":
            said = dict(self._writing.names())
            names = commands_like(wish.query, list(said))
        elif self._writing.files is not None:
            names = fuzzy(wish.query, self._writing.files.look(), OFFERED)
        start = wish.start - len(document.text_before_cursor)
        for name in names:
            text = replacement(wish, name)
            yield Completion(text, start, display=name, display_meta=one_line(said.get(name, "")))


class _QuietOutput(Vt100_Output):
    """Asks the terminal nothing: some never answer, and the prompt would complain."""

    @property
    def responds_to_cpr(self) -> bool:
        return False

    def get_rows_below_cursor_position(self) -> int:
        """At least the prompt's own: that is enough for a line below it to be drawn at all."""
        return 1


def _keys(on_mode: Callable[[], None]) -> KeyBindings:
    keys = KeyBindings()

    # Not Ctrl+J: that is what Enter becomes when it is typed while the model works.
    @keys.add("escape", "enter")
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-g")
    def _edit(event: KeyPressEvent) -> None:
        buffer = event.current_buffer

        def edit() -> None:
            with suppress(UsageError):  # the text stays as it was
                buffer.text = visible(edited(buffer.text, os.environ))
                buffer.cursor_position = len(buffer.text)

        run_in_terminal(edit)

    @keys.add("s-tab")
    def _next_mode(event: KeyPressEvent) -> None:
        on_mode()

    return keys
