"""The screen: one column of transcript, one slot below it, one status line.

In: the conversation's items, keys. Out: prompts, answers and interrupts to the conversation, and
how the session ended. It routes; what things look like is each widget's own business.
"""

import asyncio
import gc
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.driver import Driver

from ds4_agent.agent.events import ApprovalRequest, Steered
from ds4_agent.agent.material import typed
from ds4_agent.tui.approval import ApprovalPanel
from ds4_agent.tui.choosing import Rows, Work
from ds4_agent.tui.commands import order_of
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
    coalesced,
)
from ds4_agent.tui.describe import plural
from ds4_agent.tui.driver import TerminalDriver, leave_on_signals
from ds4_agent.tui.input import PromptBox, PromptInput
from ds4_agent.tui.kept_theme import keep_theme, kept_theme
from ds4_agent.tui.keys import KEYS
from ds4_agent.tui.look import DARK, LIGHT, VisibleFilter, theme_for, theme_named
from ds4_agent.tui.messages import Banner
from ds4_agent.tui.orders import Draft, Following, Leave, Orders, Say, Send, Theme
from ds4_agent.tui.pace import Pace
from ds4_agent.tui.picker import Picker
from ds4_agent.tui.session import About, mode_after
from ds4_agent.tui.slot import Slot
from ds4_agent.tui.status import Status, StatusLine, status_after
from ds4_agent.tui.transcript import Transcript
from ds4_agent.tui.walk import WalkPanel

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent

__all__ = ["AgentApp"]

TICK = 0.5  # seconds between two paints of the clock
QUIT_WITHIN = 2.0  # seconds in which a second Ctrl+C ends the session
ESCAPE_WITHIN = 1.0  # seconds in which a second Esc goes back


class AgentApp(App[None]):
    """The Textual app of one session. `load_error` is why the model could not be loaded."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = "#prompt"
    TITLE = "ds4-agent"
    CSS = """
    Screen { background: $background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "interrupt", "Interrupt", show=False),
        Binding("ctrl+c,super+c", "clear_or_quit", "Clear, then quit", show=False, priority=True),
        Binding("ctrl+q", "leave(0)", "Quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, priority=True),
        Binding("shift+tab", "next_mode", "Mode", show=False, priority=True),
        Binding("alt+up", "recall_queue", "Recall", show=False, priority=True),
        Binding("ctrl+o", "toggle_all", "Open or fold", show=False, priority=True),
        Binding("ctrl+f", "walk(True)", "Find", show=False, priority=True),
        Binding("pageup", "scroll(-1)", "Scroll up", show=False, priority=True),
        Binding("pagedown", "scroll(1)", "Scroll down", show=False, priority=True),
    ]

    def __init__(
        self,
        build: Build,
        about: About,
        first_prompt: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        on_leave: Callable[[int], None] = lambda code: None,
    ) -> None:
        """`on_leave(code)` is told of the wish to end before anything that could hang."""
        super().__init__()
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = theme_for(os.environ, kept_theme(about.places))
        self._filters.append(VisibleFilter())
        self.load_error: BaseException | None = None
        self._about = about
        self._mode = about.mode
        self._clock = clock
        self._on_leave = on_leave
        self._agent: Agent | None = None
        self.conversation = Conversation(build, self._post)
        self._orders = Orders(build, self.conversation, about, KEYS)
        self._tally = self._orders.tally
        self._inbox: deque[Item] = deque()
        self._arrived = asyncio.Event()
        self._first_order = first_prompt if order_of(first_prompt) is not None else ""
        is_said = first_prompt and not self._first_order
        self._queue: deque[str] = deque([first_prompt] if is_said else [])
        self._busy_since: float | None = None
        self._quit_asked = -QUIT_WITHIN
        self._escaped = -ESCAPE_WITHIN

    def get_driver_class(self) -> type[Driver]:
        return TerminalDriver

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return DARK.variables

    def compose(self) -> ComposeResult:
        with Transcript():
            yield Banner()
        with Slot():
            yield PromptBox(self._orders)
        yield StatusLine()

    def on_mount(self) -> None:
        leave_on_signals(asyncio.get_running_loop(), self.action_leave)
        self._show_banner()
        self._set(branch=self._about.branch, mode=self._about.mode_shown(self._mode))
        self.run_worker(self._pump(), name="pump")
        self.set_interval(TICK, self._tick)
        # The first frame is painted and the first key is read before the model takes the machine.
        self.call_after_refresh(self._load)

    async def _load(self) -> None:
        await self._go_on(self._orders.at_start())
        # What the first answer needs is imported meanwhile, off the thread that paints.
        Thread(target=import_module, args=("ds4_agent.tui.answer",), daemon=True).start()

    # What the agent says

    def _post(self, item: Item) -> None:
        """From any thread."""
        self._inbox.append(item)
        if self._loop is not None:
            with suppress(RuntimeError):  # the app has ended; nobody reads any more
                self._loop.call_soon_threadsafe(self._arrived.set)

    async def _pump(self) -> None:
        """The only place that changes the transcript on the agent's behalf, in order."""
        pace = Pace()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            items = []
            while self._inbox:
                items.append(self._inbox.popleft())
            for item in coalesced(items):
                try:
                    await self._take(item)
                except NoMatches:
                    if self.query(StatusLine):
                        raise
                    return  # the screen is being taken down
            await pace.rest()

    async def _take(self, item: Item) -> None:
        match item:
            case Loading(text):
                self._set(activity=text)
            case Loaded(agent):
                await self._take_agent(agent)
            case LoadFailed(error):
                self.load_error = error
                self.exit(return_code=1)
            case Question(request):
                await self._ask(request)
            case TurnFailed(error):
                await self._transcript.fail(str(error) or type(error).__name__)
            case Undone(text):
                await self._transcript.notice(text)
            case WentBack():
                await self._go_back(item)
            case TurnOver():
                await self._end_turn()
            case Steered(text):
                await self._show_steered(text)
            case _:
                await self._transcript.show(item)
                used = self._agent.context_tokens if self._agent else 0
                self._tally.count(item, self._clock(), used)
                self._status_line.status = status_after(self._status, item)

    async def _take_agent(self, agent: "Agent") -> None:
        gc.freeze()  # what was loaded stays: looking through it again would hold up a frame
        if self._agent is not None:
            await self._transcript.clear()
        self._agent = agent
        agent.mode = self._mode
        self._show_banner()
        await self._transcript.replay(*agent.replay())
        used, limit = agent.context_tokens, agent.context_limit
        self._set(activity="ready", busy=False, context_used=used, context_total=limit)
        if self._busy_since is None:  # else its end is still to come
            order, self._first_order = self._first_order, ""
            if order:
                await self._go_on(self._orders.submitted(order, agent, is_busy=False))
            else:
                await self._send_next()

    async def _go_back(self, went: WentBack) -> None:
        await self._transcript.go_back(went.prompt)
        if not self._prompt.text:
            self._prompt.replace_all(typed(went.prompt).text)
        await self._transcript.notice(went.text or "Back to before this prompt.")
        if self._agent is not None:
            self._set(context_used=self._agent.context_tokens)

    async def _end_turn(self) -> None:
        await self._slot.free(ApprovalPanel)
        self.conversation.withdraw()  # what the model has not read is the next prompt
        self._busy_since = None
        self._set(activity="ready", busy=False, is_ending=False, prefill=None)
        left_over = self._orders.left_over()
        await self._go_on(left_over)
        if not left_over:
            await self._send_next()

    # What the user says

    @on(PromptInput.Submitted)
    async def _submit(self, message: PromptInput.Submitted) -> None:
        is_busy = self._busy_since is not None
        await self._go_on(self._orders.submitted(message.text, self._agent, is_busy=is_busy))

    async def _enqueue(self, prompt: str) -> None:
        self._queue.append(prompt)
        self._set(queued=len(self._queue))
        if self._busy_since is not None:
            self.conversation.steer(prompt)
        elif self._agent is not None:
            await self._send_next()

    async def _send_next(self) -> None:
        if self._queue:
            prompt = self._queue.popleft()
            self._busy_since = self._clock()
            self._set(activity="working", busy=True, elapsed=0.0)
            await self._transcript.ask(prompt)
            self.conversation.send(prompt)
            for later in self._queue:
                self.conversation.steer(later)
        self._set(queued=len(self._queue))

    async def _show_steered(self, text: str) -> None:
        """A queued prompt has reached the model in the middle of its turn."""
        if text in self._queue:
            self._queue.remove(text)
        self._set(queued=len(self._queue))
        await self._transcript.ask(text)

    # The list in the slot

    async def _go_on(self, followings: Sequence[Following]) -> None:
        for following in followings:
            match following:
                case Rows(about, title, rows, first):
                    await self._close_walk()
                    await self._slot.fill(Picker(about, title, rows, first))
                case Work(activity, begin):
                    if activity:  # its end comes as `TurnOver`
                        self._busy_since = self._clock()
                        self._set(activity=activity, busy=True, elapsed=0.0)
                    begin()
                case Say(text, level):
                    await self._transcript.notice(text, level)
                case Send(prompt):
                    await self._enqueue(prompt)
                case Draft(text):
                    self._prompt.replace_all(text)
                case Theme(name):
                    self.theme = theme_named(name, self.theme)
                    keep_theme(self._about.places, "light" if self.theme == LIGHT.name else "dark")
                case Leave():
                    self.action_leave(0)

    @on(PromptInput.HistoryWished)
    async def _search_history(self) -> None:
        await self._go_on(self._orders.history_rows())

    @on(Picker.Picked)
    async def _picked(self, message: Picker.Picked) -> None:
        await self._slot.free(Picker)
        await self._go_on(self._orders.picked(message.picker.about, message.index))

    # The walk in the slot

    async def action_focus_next(self) -> None:  # type: ignore[override]
        """Tab where nothing else wants it."""
        await self.action_walk(False)

    async def action_walk(self, finds: bool) -> None:
        """Tab, Ctrl+F: the transcript is walked with the keys."""
        for panel in self.query(WalkPanel):
            panel.find()
        if not self.query("WalkPanel, ApprovalPanel, Picker"):
            await self._slot.fill(WalkPanel(self._transcript, finds=finds))

    @on(WalkPanel.Left)
    async def _walked(self, message: WalkPanel.Left) -> None:
        await self._close_walk()
        self._prompt.insert(message.character)

    async def _close_walk(self) -> None:
        if await self._slot.free(WalkPanel):
            self._transcript.leave()

    @on(WalkPanel.Copied)
    def _copied(self, message: WalkPanel.Copied) -> None:
        self.copy_to_clipboard(message.text)
        lines = plural(message.text.count("\n") + 1, "line")
        self.notify(f"Copied {lines}", timeout=QUIT_WITHIN, markup=False)

    # The question in the slot

    async def _ask(self, request: ApprovalRequest) -> None:
        await self._slot.free(ApprovalPanel)
        await self._close_walk()
        self._set(activity="waiting for you")
        await self._slot.fill(ApprovalPanel(request, self._clock))

    @on(ApprovalPanel.Decided)
    async def _decided(self, message: ApprovalPanel.Decided) -> None:
        self.conversation.answer(message.request, message.decision)
        await self._slot.free(ApprovalPanel)
        self._set(activity="working")

    @on(ApprovalPanel.TypedAhead)
    def _typed_ahead(self, message: ApprovalPanel.TypedAhead) -> None:
        self._prompt.insert(message.character)

    # Keys

    async def action_interrupt(self) -> None:
        """Esc: end the turn; what was queued comes back to be thought over."""
        if self._busy_since is None and not self._queue:
            await self._escape_twice()
            return
        self.action_recall_queue()
        if self._busy_since is not None:
            self._set(is_ending=True)
            self.conversation.interrupt()

    def action_recall_queue(self) -> None:
        """Alt+Up: what the model has not been given yet comes back to the input."""
        back = list(self._queue)
        if self._agent is not None:  # the model may have been given some in this very moment
            back = list(self.conversation.withdraw())
        if back:
            for text in back:
                self._queue.remove(text)
            draft = [self._prompt.text] if self._prompt.text else []
            self._prompt.replace_all("\n".join([*(typed(text).text for text in back), *draft]))
            self._set(queued=len(self._queue))

    async def _escape_twice(self) -> None:
        """Esc twice where nothing is under way: clear what is written, else go back."""
        again = self._clock() - self._escaped < ESCAPE_WITHIN
        self._escaped = -ESCAPE_WITHIN if again else self._clock()
        if again and self._prompt.text:
            self._prompt.replace_all("")
        elif again:
            await self._go_on(self._orders.rewind_rows(self._agent))

    async def action_clear_or_quit(self) -> None:
        """Ctrl+C: copy what is selected, else clear, else interrupt, else quit the second time."""
        selected = self.screen.get_selected_text()
        if selected:
            self.copy_to_clipboard(selected)
            self.screen.clear_selection()
        elif self._prompt.text and not self.query(ApprovalPanel):
            self._prompt.replace_all("")
        elif self._clock() - self._quit_asked < QUIT_WITHIN:
            self.action_leave(0)
        else:
            self._quit_asked = self._clock()
            if self._busy_since is not None:
                await self.action_interrupt()
            self.notify("Ctrl+C again quits", timeout=QUIT_WITHIN, markup=False)

    @on(PromptInput.Ended)
    def _quit(self) -> None:
        self.action_leave(0)

    def action_next_mode(self) -> None:
        """Shift+Tab: the next permission mode, for the calls to come."""
        self._mode = mode_after(self._mode)
        if self._agent is not None:
            self._agent.mode = self._mode
        self._set(mode=self._about.mode_shown(self._mode))

    def action_toggle_all(self) -> None:
        self._transcript.toggle_all()

    def action_scroll(self, direction: int) -> None:
        for picker in self.query(Picker):
            picker.move_page(direction)
            return
        target = next(iter(self.query("ApprovalPanel #subject")), self._transcript)
        if direction < 0:
            target.scroll_page_up(animate=False)
        else:
            target.scroll_page_down(animate=False)

    def action_leave(self, code: int) -> None:
        """End the session with this exit code, whatever the agent is doing."""
        self._on_leave(code)
        self.exit(return_code=code)

    def terminal_lost(self) -> None:
        """The terminal is gone: as if it had hung up."""
        self.action_leave(128 + 1)

    def on_resize(self) -> None:
        for panel in self.query(ApprovalPanel):
            panel.fit()
        for picker in self.query(Picker):
            picker.fit()

    def on_app_focus(self, _: events.AppFocus) -> None:
        if self.focused is None:
            self._prompt.focus()

    # Small things

    def _tick(self) -> None:
        is_taken_down = not self.query(StatusLine)
        if self._busy_since is None or self._agent is None or is_taken_down:
            return
        now, used = self._clock(), self._agent.context_tokens
        self._set(elapsed=now - self._busy_since, context_used=used)
        if speed := self._tally.speed(now, used):
            self._set(tokens_per_second=speed)

    def _show_banner(self) -> None:
        about, agent = self._about, self._agent
        hint = agent.identity.hint if agent else ""
        name = agent.identity.model if agent else ""
        self.query_one(Banner).show(about.version, name, about.directory, hint)

    def _set(self, **changes: object) -> None:
        self._status_line.status = replace(self._status, **changes)  # type: ignore[arg-type]

    @property
    def _status(self) -> Status:
        return self._status_line.status

    @property
    def _status_line(self) -> StatusLine:
        return self.query_one(StatusLine)

    @property
    def _transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def _slot(self) -> Slot:
        return self.query_one(Slot)

    @property
    def _prompt(self) -> PromptInput:
        return self.query_one(PromptInput)
