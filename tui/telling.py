"""A story as widgets: which answer, thought and calls are still growing, and what each event adds.

In: events in order, and a way to put a widget behind the last one. Out: widgets. It knows neither
the agent nor where on the screen it writes, so an earlier stretch can be told like the newest.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

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
    StepFinished,
    TaskEvent,
    TextDelta,
    ThinkingDelta,
    ToolOutput,
    TurnEnded,
)
from ds4_agent.tui.commands import COMPACTED
from ds4_agent.tui.describe import task_line
from ds4_agent.tui.messages import NoticeMessage, ThinkingMessage, UserMessage
from ds4_agent.tui.passages import prompt_of
from ds4_agent.tui.tool import ToolMessage

if TYPE_CHECKING:
    from ds4_agent.tui.answer import AnswerMessage

__all__ = ["Telling"]


class Telling:
    """One place at which a story grows. `is_open`: whether its details are shown unfolded."""

    def __init__(self, add: Callable[[Widget], Awaitable[None]], *, is_open: bool = False) -> None:
        self._add = add
        self.is_open = is_open
        self._answer: AnswerMessage | None = None
        self._thinking: ThinkingMessage | None = None
        self._calls: dict[str, ToolMessage] = {}

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

    async def tell(self, event: Event) -> None:
        """What an event adds or changes."""
        prompt = prompt_of(event)
        if prompt is not None:
            await self._close_text()
            await self._add(UserMessage(prompt))
            return
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

    async def _show_call(
        self, event: CallStarted | CallArgument | CallReady | ToolOutput | CallFinished
    ) -> None:
        if isinstance(event, CallStarted):
            await self._close_text()
            self._calls[event.id] = ToolMessage(event.name, is_open=self.is_open)
            await self._add(self._calls[event.id])
            return
        call = self._calls.get(event.id)
        if call is None:  # answered before it had a name: the result says what was wrong
            call = self._calls[event.id] = ToolMessage("tool call", is_open=self.is_open)
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
            self._thinking = ThinkingMessage(is_open=self.is_open)
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
