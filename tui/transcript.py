"""The transcript: one column of messages that stays at its end until the reader scrolls up.

In: prompts, notices and the agent's events, in order. It turns each into the widget it belongs to
and keeps which answer, thought and calls are still growing. It never talks to the agent.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.widget import Widget

from ds4_agent.agent.events import (
    ApprovalAsked,
    ApprovalDecided,
    CallArgument,
    CallFinished,
    CallReady,
    CallStarted,
    Compacted,
    Event,
    Notice,
    RunStarted,
    Steered,
    StepFinished,
    TaskEvent,
    TextDelta,
    ThinkingDelta,
    ToolOutput,
    TurnEnded,
)
from ds4_agent.tui.commands import COMPACTED
from ds4_agent.tui.describe import task_line
from ds4_agent.tui.messages import (
    Banner,
    NoticeMessage,
    ThinkingMessage,
    UserMessage,
)
from ds4_agent.tui.tool import ToolMessage

if TYPE_CHECKING:
    from ds4_agent.tui.answer import AnswerMessage

__all__ = ["Transcript"]


class Transcript(VerticalScroll, can_focus=False):
    """All messages of the session."""

    DEFAULT_CSS = """
    Transcript { height: 1fr; layout: stream; scrollbar-size-vertical: 1; padding: 0 0 1 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._answer: AnswerMessage | None = None
        self._thinking: ThinkingMessage | None = None
        self._calls: dict[str, ToolMessage] = {}
        self._is_open = False

    def on_mount(self) -> None:
        self.anchor()

    async def ask(self, prompt: str) -> None:
        """A prompt of the user, and back to the end of the transcript."""
        await self._add(UserMessage(prompt))
        self.anchor()

    async def notice(self, text: str, level: str = "info") -> None:
        """A remark of the program."""
        await self._close_text()
        await self._add(NoticeMessage(text, level))

    async def fail(self, text: str) -> None:
        """The turn broke off with an error; what was growing ends where it is."""
        for call in self._calls.values():
            call.finish(text, is_error=True, diff="", ran=False)
        self._calls.clear()
        await self.notice(text, "error")

    async def show(self, event: Event) -> None:
        """What an event adds or changes."""
        match event:
            case ThinkingDelta(text):
                await self._think(text)
            case TextDelta(text):
                await self._say(text)
            case CallStarted() | CallArgument() | CallReady() | ToolOutput() | CallFinished():
                await self._show_call(event)
            case ApprovalAsked(request):
                if call := self._calls.get(request.call_id):
                    call.asking(True)
            case ApprovalDecided(request, decision, _):
                if call := self._calls.get(request.call_id):
                    call.asking(decision.behaviour == "deny")
            case TaskEvent():
                self._show_task(event)
            case StepFinished():
                await self._close_text()
            case Notice(text):
                await self.notice(text)
            case Compacted():
                await self.notice(COMPACTED)
            case TurnEnded():
                await self._end_turn(event)

    async def replay(self, events: Sequence[Event]) -> None:
        """What an earlier process showed."""
        for event in events:
            match event:
                case RunStarted(prompt=text) | Steered(text):
                    await self._close_text()
                    await self.ask(text)
                case _:
                    await self.show(event)

    async def go_back(self, prompt: str) -> None:
        """Take away the last turn with this prompt and everything below it."""
        found = [w for w in self.query(UserMessage) if w.prompt == prompt]
        if found:
            children = list(self.children)
            await self.remove_children(children[children.index(found[-1]) :])

    async def clear(self) -> None:
        """Only the banner stays."""
        await self.remove_children([w for w in self.children if not isinstance(w, Banner)])

    def toggle_all(self) -> None:
        """Open every thought and call, or fold them again."""
        self._is_open = not self._is_open
        for widget in self.query("ThinkingMessage, ToolMessage"):
            if isinstance(widget, ThinkingMessage | ToolMessage):
                widget.toggle(self._is_open)

    async def _show_call(
        self, event: CallStarted | CallArgument | CallReady | ToolOutput | CallFinished
    ) -> None:
        if isinstance(event, CallStarted):
            await self._close_text()
            self._calls[event.id] = ToolMessage(event.name, is_open=self._is_open)
            await self._add(self._calls[event.id])
            return
        call = self._calls.get(event.id)
        if call is None:  # answered before it had a name: the result says what was wrong
            call = self._calls[event.id] = ToolMessage("tool call", is_open=self._is_open)
            await self._add(call)
        match event:
            case CallArgument(_, name, delta):
                call.argument(name, delta)
            case CallReady(_, _, arguments):
                call.ready(arguments)
            case ToolOutput(_, text):
                call.output(text)
            case CallFinished(_, _, content, is_error, diff, ran):
                call.finish(content, is_error=is_error, diff=diff, ran=ran)
                del self._calls[event.id]

    def _show_task(self, event: TaskEvent) -> None:
        """A sub-agent's calls stand in the call it works for."""
        call, inner = self._calls.get(event.task), event.event
        if call is None:
            return
        if isinstance(inner, ApprovalAsked | ApprovalDecided):
            call.asking(isinstance(inner, ApprovalAsked))
        elif line := task_line(inner):
            call.output(f"{line}\n")

    async def _think(self, text: str) -> None:
        if self._thinking is None:
            self._thinking = ThinkingMessage(is_open=self._is_open)
            await self._add(self._thinking)
        self._thinking.add(text)

    async def _say(self, text: str) -> None:
        if self._thinking is not None:
            self._thinking.finish()
            self._thinking = None
        if self._answer is None:
            if not text.strip():
                return
            from ds4_agent.tui.answer import AnswerMessage  # not before the first frame

            self._answer = AnswerMessage()
            await self._add(self._answer)
        await self._answer.add(text)

    async def _close_text(self) -> None:
        if self._thinking is not None:
            self._thinking.finish()
            self._thinking = None
        if self._answer is not None:
            answer, self._answer = self._answer, None
            await answer.finish()

    async def _end_turn(self, ended: TurnEnded) -> None:
        await self._close_text()
        self._calls.clear()
        if ended.reason == "interrupted":
            await self.notice("Interrupted. What should be done instead?", "warning")
        elif ended.reason != "end":
            await self.notice(ended.detail or f"Stopped: {ended.reason}", "warning")

    async def _add(self, widget: Widget) -> None:
        await self.mount(widget)

    @property
    def banner(self) -> Banner:
        """The banner at the head."""
        return self.query_one(Banner)
