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
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from shutil import get_terminal_size
from types import FrameType
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.events import (
    ApprovalRequest,
    Decision,
    Event,
    RunStarted,
    Steered,
    StepFinished,
    TurnEnded,
)
from ds4_agent.agent.material import typed
from ds4_agent.agent.preview import preview
from ds4_agent.tui.choosing import Rows, Work
from ds4_agent.tui.commands import SHOWN_TURNS, order_of
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
    WentBack,
)
from ds4_agent.tui.describe import (
    arguments_text,
    count,
    hides_something,
    hung,
    plural,
    prompt_text,
    seconds,
)
from ds4_agent.tui.lines import DumbLines, Lines, PromptLines
from ds4_agent.tui.orders import Draft, Following, Leave, Orders, Say, Send, Theme
from ds4_agent.tui.plain_view import PlainView
from ds4_agent.tui.session import About, about, builder, mode_after
from ds4_agent.tui.terminal import end_process_soon, is_full_terminal, kept_terminal, refusal

if TYPE_CHECKING:
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.agent.loop import Agent

__all__ = ["PlainScreen", "run"]

ROWS = 30  # of a list
QUIT_WITHIN = 2.0  # seconds in which a second Ctrl+C ends the session
KEYS = (
    ("Enter", "send; while the model works: given to it with its next results, or after it"),
    ("Alt+Enter", "new line"),
    ("Up, Down, Ctrl+R", "earlier prompts of this directory; search them"),
    ("Tab", "complete a / command or an @ file"),
    ("Ctrl+G", "write the prompt in your editor ($VISUAL, $EDITOR)"),
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
        self._orders = Orders(build, self.conversation, about, KEYS)
        self._about = about
        self._agent: Agent | None = None
        self._mode = about.mode
        self._view = PlainView(_say, colour=colour)
        self._lines: Lines = (
            PromptLines(term, self._next_mode, self._orders, self._tell)
            if term
            else DumbLines(self._tell_below)
        )
        self._footer = ""
        self._interrupted_at = -QUIT_WITHIN
        self._waiting: deque[str] = deque()  # typed while the model worked, not given to it yet
        self._draft = ""  # what an interrupt kept from the model

    def run(self, first_prompt: str = "") -> int:
        """Read and answer prompts until the user leaves; returns the exit code."""
        about = self._about
        self._view.line(f"ds4-agent {about.version} · {visible(about.directory)}", "bold")
        self._view.line("/help lists keys and commands", "dim")
        self._go_on(self._orders.at_start())
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
            if not self._submit(visible(text)):
                return 0
            text = ""

    def _submit(self, text: str) -> bool:
        """Carry out what was typed; returns False if the user left."""
        if order_of(text) is not None and not self._knows_agent():
            return True
        return self._go_on(self._orders.submitted(text, self._agent, is_busy=False))

    def _knows_agent(self) -> bool:
        """Wait until the model is loaded; False if the user did not want to."""
        try:
            while self._agent is None:
                self._take(self._inbox.get())
        except KeyboardInterrupt:
            return False
        return True

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """End the session with 128 + `number`, letting a prompt put the terminal back first."""
        end_process_soon(128 + number)
        left = _Left(128 + number)
        if not self._lines.stop(left):
            raise left

    def _post(self, item: Item) -> None:
        """From the agent's thread. How far the model is stands below a prompt being written; that
        it is loaded is told above it, and that it cannot be ends it."""
        self._inbox.put(item)
        match item:
            case Loading(text):
                self._lines.note(text)
            case Loaded():
                self._lines.note("")
                self._lines.tell_soon()
            case LoadFailed(error):
                self._lines.stop(_NoModelError(error))

    def _tell(self) -> None:
        """Show what came while nothing was under way."""
        while not self._inbox.empty():
            self._take_news(self._inbox.get())

    def _tell_below(self) -> bool:
        """The same below a prompt that stays; False where there was nothing to show."""
        told = False
        while not self._inbox.empty():
            item = self._inbox.get()
            if not told and not isinstance(item, Loading):
                _say("\n")
                told = True
            self._take_news(item)
        return told

    def _take_news(self, item: Item) -> None:
        match item:
            case Loading():
                pass  # it stood below the prompt, or is out of date
            case LoadFailed(error):
                failed = _NoModelError(error)
                if not self._lines.stop(failed):
                    raise failed
            case _:
                self._take(item)

    def _read(self) -> str:
        """The next prompt. Ctrl+C clears the line, twice it leaves; Ctrl+D leaves at once."""
        while True:
            self._tell()
            draft, self._draft = self._draft, ""
            try:
                return self._lines.read(self._mark, draft)
            except KeyboardInterrupt:
                if self._presses_again():
                    raise EOFError from None
                self._view.line("Ctrl+C again quits", "dim")

    def _follow(self, begin: Callable[[], None]) -> bool:
        """Begin something in the agent's thread and show it to its end; False if the user left."""
        self._tell()
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
            if order_of(text) is None:
                self.conversation.steer(text)

    def _keep(self) -> None:
        """Of an interrupted turn, what the model has not been given comes back to the prompt."""
        back = [text for text in self.conversation.withdraw() if text in self._waiting]
        for text in back:
            self._waiting.remove(text)
        self._draft = "\n".join(filter(None, (self._draft, *back)))

    def _take(self, item: Item) -> None:
        match item:
            case Loading(text):
                self._view.loading(text)
            case Loaded(agent):
                if self._agent is not None:
                    self._view.line(f"session {agent.identity.session_id}", "bold")
                self._agent = agent
                agent.mode = self._mode
                for text in self._waiting:
                    if order_of(text) is None:
                        agent.steer(text)
                self._view.line(f"model {visible(agent.identity.model)}", "dim")
                if agent.identity.hint:
                    self._view.line(visible(agent.identity.hint), "dim")
                self._replay(agent)
            case LoadFailed(error):
                raise _NoModelError(error)
            case Question(request):
                self.conversation.answer(request, self._ask(request))
            case TurnFailed(error):
                self._view.line(visible(str(error) or type(error).__name__), "red")
            case Undone(text):
                self._view.line(text)
            case WentBack(prompt, text):
                self._draft = self._draft or typed(prompt).text
                self._view.line(text or "Back to before this prompt.")
            case TurnOver():
                pass
            case Steered(text):
                with suppress(ValueError):
                    self._waiting.remove(text)
                self._view.line(f"{self._mark()}{text}", "bold")
            case _:
                self._view.show(item)
                self._note(item)

    def _replay(self, agent: "Agent") -> None:
        """What an earlier process showed."""
        story, now = agent.replay()
        left_out = max(len(story) - SHOWN_TURNS, 0)
        if left_out:
            self._view.line(f"{plural(left_out, 'earlier turn')} not shown", "dim")
        for event in (*story.events(left_out), *now):
            match event:
                case RunStarted(prompt=text) | Steered(text):
                    self._view.line(f"> {visible(prompt_text(text))}", "bold")
                case _:
                    self._view.show(event)

    def _go_on(self, followings: Sequence[Following]) -> bool:
        """Carry out what follows; returns False if the user left."""
        waiting = deque(followings)
        while waiting:
            match waiting.popleft():
                case Rows() as rows:
                    waiting.extend(self._orders.picked(rows.about, self._pick(rows)))
                case Work(activity, begin):
                    if activity and not self._follow(begin):
                        return False
                    if not activity:
                        begin()
                    waiting.extend(self._orders.left_over())
                case Say(is_typed=True):  # it stands there
                    pass
                case Say(text, level):
                    said = hung(visible(text), get_terminal_size().columns - 1)
                    self._view.line(said, "yellow" if level == "warning" else "")
                case Send(prompt):
                    if not self._follow(partial(self.conversation.send, prompt)):
                        return False
                case Draft(text):
                    self._draft = text
                case Theme():
                    self._view.line("The colours here are those of your terminal.")
                case Leave():
                    return False
        return True

    def _pick(self, rows: Rows) -> int | None:
        """The row with the number that is typed; None for none."""
        self._view.line(rows.title, "bold")
        shown = rows.rows[:ROWS]
        for number, row in enumerate(shown, 1):
            self._view.line(f"{number:>4}  {row.removeprefix(f'{number}  ')}")
        if len(shown) < len(rows.rows):
            self._view.line(f"      and {len(rows.rows) - len(shown):,} more", "dim")
        while True:
            try:
                said = self._lines.ask("  number, or Enter for none: ").strip()
            except (EOFError, KeyboardInterrupt):
                return None
            if not said:
                return None
            if said.isdecimal() and 1 <= int(said) <= len(shown):
                return int(said) - 1

    def _note(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            used = f"{count(event.context_tokens)}/{count(event.context_limit)}"
            self._footer = f"ctx {used} · {event.tokens_per_second:.0f} tok/s"
        elif isinstance(event, TurnEnded):
            self._footer += f" · {seconds(event.seconds)}"
        self._orders.tally.count(event, time.monotonic(), 0)

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
        if request.real:
            text += f"\n→ {visible(request.real, exact=True)}"
        self._view.line("    " + text.replace("\n", "\n    "))
        self._listen()
        with suppress(termios.error):
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        choices = "yes, session, always" if request.rule else "yes, session"
        choices += ", diff" if request.tool in ("edit", "write") else ""
        while True:
            try:
                said = self._lines.ask(f"  {choices}, or no [why]: ").strip()
            except (EOFError, KeyboardInterrupt):
                self.conversation.interrupt()
                return Decision("deny", "interrupted by the user")
            word, _, reason = said.partition(" ")
            decision = answer_of(word, reason.strip(), request)
            if decision is not None:
                return decision
            if word.lower() in ("d", "diff"):
                shown = preview(request.tool, request.arguments, request.real)
                self._view.diff(shown.diff) if shown.diff else self._view.line(visible(shown.note))

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


def answer_of(word: str, reason: str, request: ApprovalRequest) -> Decision | None:
    """The decision that a typed answer is; None where it is none."""
    match word.lower():
        case "y" | "yes":
            return Decision("allow")
        case "s" | "session":
            return Decision("allow-session")
        case "a" | "always" if request.rule:
            return Decision("allow-always")
        case "n" | "no":
            return Decision("deny", reason)
    return None


def _say(text: str) -> None:
    """Displayable text on stdout, at once, whatever the locale can encode."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
