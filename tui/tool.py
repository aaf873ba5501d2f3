"""A tool call in the transcript: shown while it is written, while it runs, and folded when done.

In: the call's name, its arguments as they grow, its output and its result. Out: one widget whose
whole content is painted from that state, so any moment of a call can be shown and tested.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from textual import events
from textual.content import Content
from textual.widgets import Static

from ds4_agent.agent.display import VisibleStream, visible
from ds4_agent.tui.change import INDENT, change_rows
from ds4_agent.tui.code import code_content, code_lines
from ds4_agent.tui.describe import (
    DiffLine,
    call_line,
    diff_lines,
    plural,
    result_line,
    went_wrong,
    written_lines,
)

__all__ = ["ToolMessage"]

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
        self.is_open = is_open
        self._painted_for = 0  # cells

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
        self.is_open = is_open
        self.set_class(is_open, "open")
        self._paint()

    def on_click(self) -> None:
        self.toggle(not self.is_open)

    def on_resize(self, event: events.Resize) -> None:
        """A band ends where the line does."""
        if self._painted_for != self.content_size.width:
            self._paint()

    @property
    def text(self) -> str:
        """The call and its result, for the clipboard and for a search; displayable."""
        result = self._result or self._output
        parts = [call_line(self.tool, self._arguments), *map(_words, self._arguments.values())]
        return "\n".join(part for part in (*parts, visible(result)) if part)

    def _paint(self) -> None:
        bullet, style = _BULLET[self._phase]
        cursor = "▌" if self._phase == "writing" else ""
        head = Content.assemble((f"{bullet} ", style), self._title(), cursor)
        self._painted_for = self.content_size.width
        self.update(Content("\n").join([head, *self._body()]))

    def _title(self) -> Content:
        title = call_line(self.tool, self._arguments) or visible(self.tool)
        if self._command():  # below in full
            return Content.styled(visible(self.tool), "bold")
        if self.tool == "bash" and title.startswith("$ "):
            return Content.assemble(("$ ", "$muted"), code_content(title[2:], language="bash"))
        name, _, rest = title.partition(" ")
        return Content.assemble((name, "bold"), f" {rest}" if rest else "")

    def _body(self) -> list[Content]:
        if self._phase == "waiting":  # the question below shows it
            return []
        if self._phase == "writing":
            return self._growing()
        if self._phase == "running":
            change = written_lines(self.tool, self._arguments)
            if change:
                return self._change(change)
            return [*self._command(), *_tail(self._output, self._limit(TAIL_LINES))]
        style = {"failed": "$text-error", "refused": "$text-warning"}.get(self._phase, "")
        line = result_line(self.tool, self._result, is_error=self._phase != "done")
        summary = Content.assemble(("└ ", "$faint"), (line, style or "$muted"))
        return [*self._command(), _indent(summary, 2), *self._detail()]

    def _growing(self) -> list[Content]:
        """The end of what is being written; no more is laid out, twenty times a second."""
        limit = self._limit(DIFF_LINES)
        texts = {key: _words(self._arguments.get(key, "")) for key in ("old", "new", "content")}
        total = sum(map(_line_count, texts.values()))
        ends = {key: _last_lines(text, limit) for key, text in texts.items()}
        lines = written_lines(self.tool, ends)[-limit:]
        if not lines:
            return self._command()
        return _with_rest(self._rows(lines), total - len(lines), above=True)

    def _command(self) -> list[Content]:
        """A command of several lines, which its title shows as one: its end while it is written,
        all of it once it is opened."""
        command = visible(_words(self._arguments.get("command", "")))
        writing = self._phase == "writing"
        if self.tool != "bash" or "\n" not in command or not (writing or self.is_open):
            return []
        lines = code_lines(_last_lines(command, self._limit(TAIL_LINES)), language="bash")
        rows = [_indent(line, INDENT) for line in lines]
        return _with_rest(rows, _line_count(command) - len(rows), above=True)

    def _detail(self) -> list[Content]:
        if self._diff:
            return self._change(diff_lines(self._diff))
        rest = visible(self._result).partition("\n")[2]
        if self.is_open:
            return _tail(rest, OPEN_LINES, head=True)
        return _tail(rest, TAIL_LINES) if self.tool == "bash" else []

    def _change(self, lines: Sequence[DiffLine]) -> list[Content]:
        """The first lines of a change."""
        shown = lines[: self._limit(DIFF_LINES)]
        return _with_rest(self._rows(shown), len(lines) - len(shown), above=False)

    def _rows(self, lines: Sequence[DiffLine]) -> list[Content]:
        return change_rows(lines, _words(self._arguments.get("path", "")), self._painted_for)

    def _limit(self, folded: int) -> int:
        return OPEN_LINES if self.is_open else folded


def _tail(text: str, limit: int, *, head: bool = False) -> list[Content]:
    """The last (or first) `limit` lines of displayable text."""
    lines = text.rstrip("\n").split("\n") if text.strip() else []
    hidden = max(0, len(lines) - limit)
    shown = lines[: len(lines) - hidden] if head else lines[hidden:]
    rows = [_indent(Content.styled(line, "$muted"), INDENT) for line in shown]
    return _with_rest(rows, hidden, above=not head)


def _with_rest(rows: list[Content], hidden: int, *, above: bool) -> list[Content]:
    if not hidden:
        return rows
    rest = _indent(Content.styled(f"… {plural(hidden, 'more line')} (ctrl+o)", "$faint"), INDENT)
    return [rest, *rows] if above else [*rows, rest]


def _indent(content: Content, cells: int) -> Content:
    return Content(" " * cells) + content


def _words(value: object) -> str:
    return value if isinstance(value, str) else ""


def _line_count(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n")) if text else 0


def _last_lines(text: str, limit: int) -> str:
    """The last `limit` lines of a text; a newline at its end ends the last one."""
    ended = text.endswith("\n")
    return "\n".join(text[: len(text) - ended].split("\n")[-limit:]) + "\n" * ended
