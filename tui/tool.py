"""A tool call in the transcript: shown while it is written, while it runs, and folded when done.

In: the call's name, its arguments as they grow, its output and its result. Out: one widget whose
whole content is painted from that state, so any moment of a call can be shown and tested.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from textual.content import Content
from textual.widgets import Static

from ds4_agent.agent.display import VisibleStream, visible
from ds4_agent.tui.describe import (
    DiffLine,
    call_line,
    diff_lines,
    plural,
    result_line,
    went_wrong,
    written_lines,
)

__all__ = ["ToolMessage", "change_rows"]

Phase = Literal["writing", "waiting", "running", "done", "failed", "refused"]

DIFF_LINES = 16  # of a folded change
TAIL_LINES = 5  # of a running or folded command
OPEN_LINES = 1000  # of an opened call: more is for the file, not for the screen
_BULLET = {
    "writing": ("○", "$muted"),
    "waiting": ("◐", "$text-warning"),
    "running": ("◐", "$text-primary"),
    "done": ("●", "$text-success"),
    "failed": ("●", "$text-error"),
    "refused": ("●", "$text-warning"),
}
_DIFF_STYLE = {
    "-": "$text-error on $error 12%",
    "+": "$text-success on $success 12%",
    " ": "$muted",
    "@": "$faint",
}


class ToolMessage(Static):
    """One call. The methods follow its life: `argument`*, `ready`, `output`*, `finish`."""

    DEFAULT_CSS = """
    ToolMessage {
        margin: 1 0 0 0; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
        &.open { text-wrap: wrap; }
    }
    """

    def __init__(self, name: str, *, is_open: bool = False) -> None:
        super().__init__(Content(""), classes="open" if is_open else None)
        self.tool = name
        self._arguments: dict[str, object] = {}
        self._phase: Phase = "writing"
        self._output = ""
        self._stream = VisibleStream()
        self._result = ""
        self._diff = ""
        self._is_open = is_open

    def on_mount(self) -> None:
        self._paint()

    def argument(self, name: str, delta: str) -> None:
        """More of the parameter `name`."""
        self._arguments[name] = str(self._arguments.get(name, "")) + delta
        self._paint()

    def ready(self, arguments: Mapping[str, object]) -> None:
        """The call is whole."""
        self._arguments = dict(arguments)
        self._phase = "running"
        self._paint()

    def asking(self, waits: bool) -> None:
        """The call waits for a person, or no longer does."""
        self._phase = "waiting" if waits else "running"
        self._paint()

    def output(self, text: str) -> None:
        """More output of the running command. Only its end is kept."""
        self._phase = "running"
        self._output = (self._output + self._stream.feed(text))[-20_000:]
        self._paint()

    def finish(self, content: str, *, is_error: bool, diff: str, ran: bool) -> None:
        """The call is answered."""
        self._result, self._diff = content, diff
        failed = went_wrong(self.tool, content, is_error=is_error)
        self._phase = "refused" if is_error and not ran else "failed" if failed else "done"
        self._paint()

    def toggle(self, is_open: bool) -> None:
        """Show everything, or the folded form."""
        self._is_open = is_open
        self.set_class(is_open, "open")
        self._paint()

    def on_click(self) -> None:
        self.toggle(not self._is_open)

    def _paint(self) -> None:
        bullet, style = _BULLET[self._phase]
        title = call_line(self.tool, self._arguments) or visible(self.tool)
        cursor = "▌" if self._phase == "writing" else ""
        head = Content.assemble((f"{bullet} ", style), (title + cursor, "bold"))
        self.update(Content("\n").join([head, *self._body()]))

    def _body(self) -> list[Content]:
        if self._phase == "waiting":  # the question below shows it
            return []
        if self._phase in ("writing", "running"):
            change = written_lines(self.tool, self._arguments)
            if change:
                return _change(change, self._limit(DIFF_LINES), tail=self._phase == "writing")
            return _tail(self._output, self._limit(TAIL_LINES))
        style = {"failed": "$text-error", "refused": "$text-warning"}.get(self._phase, "")
        line = result_line(self.tool, self._result, is_error=self._phase != "done")
        summary = Content.assemble(("└ ", "$faint"), (line, style or "$muted"))
        return [_indent(summary, 2), *self._detail()]

    def _detail(self) -> list[Content]:
        if self._diff:
            return _change(diff_lines(self._diff), self._limit(DIFF_LINES))
        if self._is_open:
            return _tail(_after_first_line(visible(self._result)), OPEN_LINES, head=True)
        if self.tool == "bash":
            return _tail(_after_first_line(visible(self._result)), TAIL_LINES)
        return []

    def _limit(self, folded: int) -> int:
        return OPEN_LINES if self._is_open else folded


def change_rows(lines: Sequence[DiffLine]) -> list[Content]:
    """The lines of a change, each with its number and its colour, indented like a tool's detail."""
    digits = max((len(str(line.number)) for line in lines if line.number), default=0)
    return [
        _indent(
            Content.assemble(
                (f"{line.number or '':>{digits}} " if digits else "", "$faint"),
                (f"{'' if line.mark == '@' else line.mark} {line.text}", _DIFF_STYLE[line.mark]),
            ),
            4,
        )
        for line in lines
    ]


def _change(lines: Sequence[DiffLine], limit: int, *, tail: bool = False) -> list[Content]:
    """At most `limit` lines of a change, the first or the last ones."""
    hidden = max(0, len(lines) - limit)
    shown = lines[hidden:] if tail else lines[: len(lines) - hidden]
    return _with_rest(change_rows(shown), hidden, above=tail)


def _tail(text: str, limit: int, *, head: bool = False) -> list[Content]:
    """The last (or first) `limit` lines of displayable text."""
    lines = text.rstrip("\n").split("\n") if text.strip() else []
    hidden = max(0, len(lines) - limit)
    shown = lines[: len(lines) - hidden] if head else lines[hidden:]
    rows = [_indent(Content.styled(line, "$muted"), 4) for line in shown]
    return _with_rest(rows, hidden, above=not head)


def _with_rest(rows: list[Content], hidden: int, *, above: bool) -> list[Content]:
    if not hidden:
        return rows
    rest = _indent(Content.styled(f"… {plural(hidden, 'more line')} (ctrl+o)", "$faint"), 4)
    return [rest, *rows] if above else [*rows, rest]


def _indent(content: Content, cells: int) -> Content:
    return Content(" " * cells) + content


def _after_first_line(text: str) -> str:
    return text.partition("\n")[2]
