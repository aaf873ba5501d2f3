"""Events as lines of text for the plain prompt.

In: events, in order. Out: calls of `write` with displayable text that ends where a line ends,
except inside an answer that is still being written. Holds only what is needed to do that.
"""

import time
from collections.abc import Callable

from ds4_agent.agent.display import VisibleStream, visible
from ds4_agent.agent.events import (
    CallFinished,
    CallReady,
    Compacted,
    Event,
    Notice,
    PrefillProgressed,
    StepFinished,
    TaskEvent,
    TextDelta,
    ThinkingDelta,
    TurnEnded,
)
from ds4_agent.tui.commands import COMPACTED
from ds4_agent.tui.describe import (
    DiffLine,
    bar,
    call_line,
    count,
    diff_lines,
    plural,
    result_line,
    seconds,
    task_line,
    went_wrong,
)

__all__ = ["PlainView"]

PREFILL_EVERY = 2.0  # seconds between two lines about a prefill or a load
DIFF_LINES = 40
RESULT_LINES = 12  # of a command's output
_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class PlainView:
    """Writes what happens. `colour` False: not one escape sequence."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        colour: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._colour = colour
        self._clock = clock
        self._said = clock()
        self._answer: VisibleStream | None = None
        self._thought = 0
        self._at_line_start = True

    def line(self, text: str, colour: str = "") -> None:
        """One or more whole lines of displayable text, beginning on a line of their own."""
        self.end_text()
        self._write(self._painted(text, colour) + "\n")

    def end_text(self) -> None:
        """The answer or thought that was being written is over."""
        if self._thought:
            thought, self._thought = self._thought, 0
            self._write(self._painted(f"(thought {plural(thought, 'character')})", "dim") + "\n")
        if self._answer is not None:
            rest, self._answer = self._answer.finish(), None
            self._write(rest if self._at_line_start and not rest else rest + "\n")
        self._at_line_start = True

    def show(self, event: Event) -> None:
        """What an event adds."""
        match event:
            case ThinkingDelta(text):
                self._thought += len(text)
            case TextDelta(text):
                self._say(text)
            case PrefillProgressed():
                self._show_prefill(event)
            case CallReady(_, name, arguments):
                self.line(f"* {call_line(name, arguments)}", "bold")
            case CallFinished():
                self._show_result(event)
            case StepFinished():
                self.end_text()
            case Notice(text):
                self.line(visible(text), "yellow")
            case TaskEvent(task, inner):
                if line := task_line(inner):
                    self.line(f"  {task}: {line}", "dim")
            case Compacted():
                self.line(COMPACTED, "dim")
            case TurnEnded(reason=reason, detail=detail) if reason != "end":
                self.line(visible(detail or f"stopped: {reason}"), "yellow")
            case _:
                pass

    def loading(self, text: str) -> None:
        """How far the model is, now and then."""
        if self._clock() - self._said >= PREFILL_EVERY:
            self._said = self._clock()
            self.line(text, "dim")

    def _say(self, text: str) -> None:
        if self._answer is None:
            if not text.strip():
                return
            self.end_text()
            self._answer = VisibleStream()
            text = text.lstrip("\n")
        shown = self._answer.feed(text)
        if shown:
            self._write(shown)
            self._at_line_start = shown.endswith("\n")

    def _show_prefill(self, event: PrefillProgressed) -> None:
        if event.done >= event.total or self._clock() - self._said < PREFILL_EVERY:
            return
        self._said = self._clock()
        percent = 100 * event.done // max(event.total, 1)
        speed, rest = event.tokens_per_second, event.total - event.done
        self.line(
            f"prefill {bar(event.done, event.total)} {count(event.done)}/{count(event.total)} "
            f"{percent}%" + (f" {speed:.0f} tok/s ETA {seconds(rest / speed)}" if speed else ""),
            "dim",
        )

    def _show_result(self, event: CallFinished) -> None:
        failed = went_wrong(event.name, event.content, is_error=event.is_error)
        colour = "red" if failed else "dim"
        line = result_line(event.name, event.content, is_error=event.is_error)
        self.line(f"  {line}", colour)
        if event.diff:
            self._show_diff(diff_lines(event.diff))
        elif event.name == "bash":
            lines = visible(event.content).rstrip("\n").split("\n")[1:]
            hidden = len(lines) - RESULT_LINES
            if hidden > 0:
                self.line(f"    … {plural(hidden, 'more line')}", "dim")
            for text in lines[-RESULT_LINES:]:
                self.line(f"    {text}", "dim")

    def diff(self, text: str) -> None:
        """A unified diff to its last line."""
        lines = diff_lines(text)
        self._show_diff(lines, len(lines))

    def _show_diff(self, lines: list[DiffLine], limit: int = DIFF_LINES) -> None:
        for line in lines[:limit]:
            colour = {"-": "red", "+": "green"}.get(line.mark, "dim")
            mark = " " if line.mark == "@" else line.mark
            self.line(f"    {line.number or '':>4} {mark} {line.text}", colour)
        if len(lines) > limit:
            self.line(f"    … {plural(len(lines) - limit, 'more line')}", "dim")

    def _painted(self, text: str, colour: str) -> str:
        code = _COLOURS.get(colour)
        return f"\x1b[{code}m{text}\x1b[0m" if code and self._colour and text else text
