"""The plain prompt: the same agent on a line prompt in the terminal's own scrollback.

In: lines typed at a prompt. Out: the events as text, line by line, without cursor movement, so it
works over a slow line, on a dumb terminal and with a screen reader. Colour only where it is wanted.
"""

import os
import signal
import sys
import termios
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.events import (
    ApprovalRequest,
    Compacted,
    Decision,
    Steered,
    StepFinished,
    TurnEnded,
    Usage,
)
from ds4_agent.tui.commands import (
    command_of,
    cost_text,
    help_text,
    slow_text,
    tools_text,
    uncompact_text,
)
from ds4_agent.tui.conversation import (
    Build,
    Conversation,
    Item,
    Loaded,
    LoadFailed,
    Loading,
    Question,
    TurnFailed,
    TurnOver,
    Undone,
)
from ds4_agent.tui.describe import arguments_text, count, hides_something, seconds
from ds4_agent.tui.lines import DumbLines, Lines, PromptLines
from ds4_agent.tui.plain_view import PlainView
from ds4_agent.tui.session import About, about, builder, mode_after
from ds4_agent.tui.terminal import end_process_soon, is_full_terminal, kept_terminal, refusal

if TYPE_CHECKING:
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.agent.loop import Agent

__all__ = ["PlainScreen", "run"]

QUIT_WITHIN = 2.0  # seconds in which a second Ctrl+C ends the session
KEYS = (
    ("Enter", "send; while the model works: given to it with its next results, or after it"),
    ("Alt+Enter", "new line"),
    ("Up, Down", "earlier prompts"),
    ("Ctrl+C", "clear the line, interrupt the model, then quit"),
    ("Shift+Tab", "permission mode: ask, accept-edits, plan, auto"),
)
LISTEN_EVERY = 0.1  # seconds between two looks at what was typed while the model works
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def run(options: "RunOptions", prompt: str = "") -> int:
    """A session on the plain prompt. Returns the exit code.

    Raises what building the agent raised (UsageError, EngineError).
    """
    reason = refusal(sys.stdin, sys.stdout)
    if reason:
        print(f"ds4-agent: {reason}", file=sys.stderr)
        return 1
    term = os.environ["TERM"] if is_full_terminal(os.environ, sys.stdout) else ""
    colour = bool(term) and "NO_COLOR" not in os.environ
    screen = PlainScreen(builder(options), about(options), term, colour=colour)
    before = {number: signal.signal(number, screen.on_signal) for number in SIGNALS}
    try:
        with kept_terminal():
            return screen.run(prompt)
    except _NoModelError as failed:
        raise failed.error from None
    except _Left as left:
        return left.code
    except OSError:  # nobody can read any more what is printed
        end_process_soon(128 + signal.SIGHUP)
        return 128 + signal.SIGHUP
    finally:
        screen.conversation.close()
        for number, handler in before.items():
            signal.signal(number, handler)


class _NoModelError(Exception):
    """The model could not be loaded, because of `error`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class _Left(BaseException):
    """A signal ends the session. Raised in the main thread only, by its handler."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class PlainScreen:
    """One session on the plain prompt. Everything here runs in the main thread."""

    def __init__(self, build: Build, about: About, term: str, *, colour: bool) -> None:
        """`term` names the terminal; "" is one on which no cursor can be moved."""
        self._inbox: SimpleQueue[Item] = SimpleQueue()
        self.conversation = Conversation(build, self._post)
        self._about = about
        self._agent: Agent | None = None
        self._mode = about.mode
        self._view = PlainView(_say, colour=colour)
        self._lines: Lines = PromptLines(term, self._next_mode) if term else DumbLines()
        self._usage = Usage()
        self._last_usage: Usage | None = None
        self._worked = 0.0
        self._turns = 0
        self._footer = ""
        self._interrupted_at = -QUIT_WITHIN
        self._waiting: deque[str] = deque()  # typed while the model worked, not given to it yet
        self._draft = ""  # what an interrupt kept from the model

    def run(self, first_prompt: str = "") -> int:
        """Read and answer prompts until the user leaves; returns the exit code."""
        self.conversation.start()
        about = self._about
        self._view.line(f"ds4-agent {about.version} · {visible(about.directory)}", "bold")
        self._view.line("/help lists keys and commands", "dim")
        text = first_prompt
        while True:
            if not text.strip() and self._waiting:
                text = self._waiting.popleft()
                self._view.line(f"{self._mark()}{text}", "bold")
            if not text.strip():
                try:
                    text = self._read()
                except EOFError:
                    return 0
                if not text.strip():
                    continue
            command = command_of(text)
            if command == "quit":
                return 0
            if command == "undo":
                stays = self._follow(lambda: self.conversation.do("undo"))
            elif command == "compact":
                stays = self._follow(lambda: self.conversation.do("compact"))
            elif command is not None:
                stays = self._run_command(command)
            else:
                stays = self._take_turn(text)
            if not stays:
                return 0
            text = ""

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """End the session with 128 + `number`, letting a prompt put the terminal back first."""
        end_process_soon(128 + number)
        left = _Left(128 + number)
        if not self._lines.stop(left):
            raise left

    def _post(self, item: Item) -> None:
        """From the agent's thread. A model that cannot be loaded ends a prompt being written."""
        self._inbox.put(item)
        if isinstance(item, LoadFailed):
            self._lines.stop(_NoModelError(item.error))

    def _read(self) -> str:
        """The next prompt. Ctrl+C clears the line, twice it leaves; Ctrl+D leaves at once."""
        while True:
            draft, self._draft = self._draft, ""
            try:
                return self._lines.read(self._mark, draft)
            except KeyboardInterrupt:
                if self._presses_again():
                    raise EOFError from None
                self._view.line("Ctrl+C again quits", "dim")

    def _take_turn(self, prompt: str) -> bool:
        """Run one prompt; returns False if the user left."""
        return self._follow(lambda: self.conversation.send(visible(prompt)))

    def _follow(self, begin: Callable[[], None]) -> bool:
        """Begin something in the agent's thread and show it to its end; False if the user left."""
        while not self._inbox.empty():
            self._take(self._inbox.get())
        if self._agent is None:
            self._view.line("loading model …", "dim")
        begin()  # after the inbox is empty: its end must not be taken for something earlier
        while True:
            try:
                self._listen()
                item = self._inbox.get(timeout=LISTEN_EVERY)
                if isinstance(item, TurnOver):
                    self._end_turn()
                    return True
                self._take(item)
            except Empty:
                pass
            except KeyboardInterrupt:
                if self._presses_again():
                    return False
                self.conversation.interrupt()
                self._keep()
                self._view.line("interrupting; Ctrl+C again quits", "dim")

    def _listen(self) -> None:
        """Take what was typed meanwhile; a prompt is given to the model as soon as it can be."""
        while text := visible(self._lines.typed()):
            self._waiting.append(text)
            if command_of(text) is None:
                self.conversation.steer(text)

    def _keep(self) -> None:
        """Of an interrupted turn, what the model has not been given comes back to the prompt."""
        back = [text for text in self.conversation.withdraw() if text in self._waiting]
        for text in back:
            self._waiting.remove(text)
        self._draft = "\n".join(filter(None, (self._draft, *back)))

    def _take(self, item: Item) -> None:
        match item:
            case Loading():
                pass
            case Loaded(agent):
                self._agent = agent
                agent.mode = self._mode
                for text in self._waiting:
                    if command_of(text) is None:
                        agent.steer(text)
                self._view.line(f"model {visible(agent.identity.model)}", "dim")
                if agent.identity.hint:
                    self._view.line(visible(agent.identity.hint), "dim")
            case LoadFailed(error):
                raise _NoModelError(error)
            case Question(request):
                self.conversation.answer(request, self._ask(request))
            case TurnFailed(error):
                self._view.line(visible(str(error) or type(error).__name__), "red")
            case Undone(text):
                self._view.line(text)
            case TurnOver():
                pass
            case Steered(text):
                with suppress(ValueError):
                    self._waiting.remove(text)
                self._view.line(f"{self._mark()}{text}", "bold")
            case _:
                self._view.show(item)
                self._note(item)

    def _note(self, event: object) -> None:
        if isinstance(event, StepFinished):
            used = f"{count(event.context_tokens)}/{count(event.context_limit)}"
            self._footer = f"ctx {used} · {event.tokens_per_second:.0f} tok/s"
        elif isinstance(event, TurnEnded):
            self._usage += event.usage
            self._last_usage = event.usage
            self._worked += event.seconds
            self._turns += 1
            self._footer += f" · {seconds(event.seconds)}"
        elif isinstance(event, Compacted):
            self._usage += event.usage

    def _end_turn(self) -> None:
        self.conversation.withdraw()  # what the model has not read is the next prompt
        self._view.end_text()
        parts = [self._footer, self._about.mode_shown(self._mode), one_line(self._about.branch, 32)]
        self._view.line(" · ".join(part for part in parts if part), "dim")

    def _ask(self, request: ApprovalRequest) -> Decision:
        """Put the question; nothing typed before it was shown can answer it."""
        self._view.line(f"? allow {visible(request.tool)}: {one_line(request.reason)}", "yellow")
        if hides_something(request.arguments):
            self._view.line("  it holds invisible or control characters, written out:", "yellow")
        text = arguments_text(request.tool, request.arguments)
        self._view.line("    " + text.replace("\n", "\n    "))
        self._listen()
        with suppress(termios.error):
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        while True:
            try:
                said = self._lines.ask("  yes, session, or no [why]: ").strip()
            except (EOFError, KeyboardInterrupt):
                self.conversation.interrupt()
                return Decision("deny", "interrupted by the user")
            word, _, reason = said.partition(" ")
            if word.lower() in ("y", "yes"):
                return Decision("allow")
            if word.lower() in ("s", "session"):
                return Decision("allow-session")
            if word.lower() in ("n", "no"):
                return Decision("deny", reason.strip())

    def _run_command(self, name: str) -> bool:
        if name == "help":
            self._view.line(help_text(KEYS))
        elif name == "tools":
            signatures = self._agent.identity.tool_signatures if self._agent else ()
            self._view.line(tools_text(signatures))
        elif name == "uncompact":
            is_back = self._agent is not None and self._agent.uncompact()
            self._view.line(uncompact_text(is_back))
        elif name == "cost":
            self._view.line(cost_text(self._usage, self._worked, self._turns))
        elif name == "why-slow":
            parting = self._agent.divergence() if self._agent else ""
            self._view.line(slow_text(self._last_usage, parting))
        else:
            self._view.line(f"there is no command /{name}; see /help", "yellow")
        return True

    def _presses_again(self) -> bool:
        now = time.monotonic()
        again = now - self._interrupted_at < QUIT_WITHIN
        self._interrupted_at = now
        return again

    def _mark(self) -> str:
        return f"{self._about.mode_shown(self._mode)} > "

    def _next_mode(self) -> None:
        self._mode = mode_after(self._mode)
        if self._agent is not None:
            self._agent.mode = self._mode


def _say(text: str) -> None:
    """Displayable text on stdout, at once, whatever the locale can encode."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
