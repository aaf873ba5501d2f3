"""The status line: what the engine does now, in its own numbers, on one line.

In: a frozen `Status`. Out: a line that fits the width; what matters least goes first when it is
narrow. Every number comes from the engine's events, none is estimated here.
"""

from dataclasses import dataclass, replace

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from ds4_agent.agent.display import one_line
from ds4_agent.agent.events import (
    ApprovalDecided,
    ApprovalRequest,
    CallFinished,
    CallReady,
    CallStarted,
    Event,
    PrefillProgressed,
    StepFinished,
    StepStarted,
    TextDelta,
    ThinkingDelta,
)
from ds4_agent.tui.describe import bar, count, seconds

__all__ = ["Status", "StatusLine", "render_status", "status_after"]

Part = tuple[str, str]  # text, style
_GAP = " │ "


@dataclass(frozen=True)
class Status:
    """What the line shows. `prefill` is (done, total, tokens per second) while one runs."""

    activity: str = "loading model"
    busy: bool = True
    is_ending: bool = False  # the user interrupted; the turn is not over yet
    prefill: tuple[int, int, float] | None = None
    restored: int = 0  # tokens of the last step whose state came from disk
    context_used: int = 0
    context_total: int = 0
    tokens_per_second: float = 0.0
    elapsed: float = 0.0
    queued: int = 0
    mode: str = ""
    branch: str = ""


def status_after(status: Status, event: Event) -> Status:
    """What the line shows once `event` has happened."""
    match event:
        case StepStarted(_, tokens):
            return replace(status, prefill=(0, tokens, 0.0), activity="working")
        case PrefillProgressed(done, total, _, speed):
            running = (done, total, speed) if done < total else None
            return replace(status, prefill=running, activity="working")
        case ThinkingDelta():
            return replace(status, prefill=None, activity="thinking")
        case TextDelta():
            return replace(status, prefill=None, activity="writing")
        case CallStarted(_, name):
            return replace(status, prefill=None, activity=f"writing {one_line(name, 20)}")
        case CallReady(_, name) | ApprovalDecided(request=ApprovalRequest(tool=name)):
            return replace(status, activity=f"running {one_line(name, 20)}")
        case CallFinished():
            return replace(status, activity="working")
        case StepFinished(usage, used, limit, speed):
            return replace(
                status,
                prefill=None,
                restored=usage.cached_tokens,
                context_used=used,
                context_total=limit,
                tokens_per_second=speed,
            )
    return status


def status_parts(status: Status) -> list[tuple[int, list[Part]]]:
    """The line's parts from left to right, each with its rank: a high one is left out first."""
    parts: list[tuple[int, list[Part]]] = [(0, _activity(status))]
    if status.queued:
        parts.append((3, [(f"{status.queued} queued", "$text-warning")]))
    if status.context_total:
        used = f"{count(status.context_used)}/{count(status.context_total)}"
        parts.append((2, [("ctx ", "$muted"), (used, "")]))
    if status.restored:
        parts.append((6, [(f"kv {count(status.restored)} restored", "$muted")]))
    if status.tokens_per_second:
        parts.append((4, [(f"{status.tokens_per_second:.0f} tok/s", "")]))
    if status.mode:
        style = "$text-success" if status.mode in ("ask", "plan") else "$text-warning"
        parts.append((1, [(status.mode, style)]))
    if status.branch:
        parts.append((5, [("git ", "$muted"), (one_line(status.branch, 32), "")]))
    return parts


def render_status(status: Status, width: int) -> Content:
    """The line in at most `width` cells; what does not fit is left out, the highest rank first."""
    ranked = status_parts(status)
    while len(ranked) > 1 and _width(ranked) > width:
        ranked.remove(max(ranked, key=lambda part: part[0]))
    pieces: list[Part] = []
    for index, (_, part) in enumerate(ranked):
        if index:
            pieces.append((_GAP, "$faint"))
        pieces.extend(part)
    return Content.assemble(*pieces)


def _activity(status: Status) -> list[Part]:
    if status.is_ending:
        return [("interrupting", "$text-warning")]
    if status.prefill is not None:
        done, total, speed = status.prefill
        percent = 100 * done // total if total else 100
        parts: list[Part] = [
            ("prefill ", "$text-primary"),
            (bar(done, total), "$primary"),
            (f" {count(done)}/{count(total)} {percent}%", ""),
        ]
        if speed:
            parts.append((f" {speed:.0f} tok/s", "$muted"))
            if left := (total - done) / speed:
                parts.append((f" ETA {seconds(left)}", "$muted"))
        return parts
    if status.busy:
        elapsed = f" {seconds(status.elapsed)}" if status.elapsed >= 1 else ""
        return [(status.activity, "$text-primary"), (elapsed, "$muted")]
    return [(status.activity, "$muted")]


def _width(ranked: list[tuple[int, list[Part]]]) -> int:
    texts = ["".join(text for text, _ in part) for _, part in ranked]
    return Content(_GAP.join(texts)).cell_length


class StatusLine(Widget):
    """One line at the bottom; set `status` and it paints itself."""

    DEFAULT_CSS = """
    StatusLine {
        height: 1;
        padding: 0 1;
        color: $foreground;
    }
    """

    status: reactive[Status] = reactive(Status())

    def render(self) -> Content:
        return render_status(self.status, self.content_size.width)
