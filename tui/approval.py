"""The question whether a call may run, in place of the input.

In: an `ApprovalRequest`. Out: one `Decided` message. What is shown is the call to its last
character, with everything invisible written out. For the first half second, and for half a second
after each key that came too early, no key decides: typing meant for the prompt goes there.
"""

import time
from collections.abc import Callable

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.events import ApprovalRequest, Decision
from ds4_agent.tui.change import change_rows
from ds4_agent.tui.describe import arguments_text, hides_something, written_lines

__all__ = ["GRACE", "ApprovalPanel"]

GRACE = 0.5  # seconds without a key before keys decide
_IN_CHANGE = ("old", "new", "content")  # arguments shown as a change, not as text


class ApprovalPanel(Vertical, can_focus=True):
    """One question. Keys: 1-3, y, n, arrows and Enter; Esc denies."""

    DEFAULT_CSS = """
    ApprovalPanel {
        height: auto;
        padding: 0 1;
        border-top: solid $warning;
        border-bottom: solid $warning;
        border-title-color: $text-warning;
        border-title-style: bold;
        & > #subject {
            height: auto; margin: 0 0 1 0; scrollbar-size-vertical: 1;
        }
        & > #choices { height: 3; }
        & #exact { width: 1fr; }
        & > #reason { display: none; border: none; height: 1; padding: 0 1; background: $surface; }
        & > #hint { color: $faint; }
        &.denying > #reason { display: block; }
    }
    """

    class Decided(Message):
        """The user's answer to `request`."""

        def __init__(self, request: ApprovalRequest, decision: Decision) -> None:
            super().__init__()
            self.request = request
            self.decision = decision

    class TypedAhead(Message):
        """A character that was meant for the prompt."""

        def __init__(self, character: str) -> None:
            super().__init__()
            self.character = character

    def __init__(
        self, request: ApprovalRequest, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._request = request
        self._clock = clock
        self._quiet_since = clock()
        self._choice = 0
        self._choices = (
            "Allow once",
            f"Allow {scope(request)} in this session",
            "Deny",
        )

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="subject", can_focus=False):
            yield Static(approval_content(self._request), id="exact")
        yield Static(Content(""), id="choices")
        yield Input(placeholder="why not? (goes to the model; Enter sends)", id="reason")
        yield Static(Content(""), id="hint")

    def on_mount(self) -> None:
        # A str would be read as markup.
        self.border_title = Content(f" Allow {visible(self._request.tool)}? ")
        self._quiet_since = self._clock()
        self.fit()
        self._paint()
        self.focus()

    def fit(self) -> None:
        """Leave room for the choices. (`vh` is not what it says while an `auto` is measured.)"""
        self.query_one("#subject").styles.max_height = max(3, self.app.size.height * 2 // 5)

    def on_key(self, event: events.Key) -> None:
        if self.has_class("denying"):
            self._key_while_denying(event)
            return
        event.stop()
        event.prevent_default()
        if not self._is_armed():
            self._quiet_since = self._clock()
            if event.is_printable and event.character:
                self.post_message(self.TypedAhead(event.character))
            return
        self._act(event.key)

    def on_click(self, event: events.Click) -> None:
        """A click picks; only a key or a second click on the picked one decides."""
        if event.widget is None or event.widget.id != "choices" or not self._is_armed():
            return
        picked = int(event.y)
        if 0 <= picked < len(self._choices):
            if picked == self._choice:
                self._decide(picked)
            else:
                self._pick(picked)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._answer(Decision("deny", event.value.strip()))

    def _act(self, key: str) -> None:
        if key in ("up", "k", "shift+tab"):
            self._pick(self._choice - 1)
        elif key in ("down", "j", "tab"):
            self._pick(self._choice + 1)
        elif key == "enter":
            self._decide(self._choice)
        elif key in ("1", "2", "3"):
            self._decide(int(key) - 1)
        elif key == "y":
            self._decide(0)
        elif key == "n":
            self._decide(2)
        elif key == "escape":
            self._answer(Decision("deny"))
        elif key in ("pageup", "pagedown"):
            subject = self.query_one("#subject", VerticalScroll)
            subject.scroll_page_up() if key == "pageup" else subject.scroll_page_down()

    def _key_while_denying(self, event: events.Key) -> None:
        if event.key == "escape":
            event.stop()
            event.prevent_default()
            self.remove_class("denying")
            self.focus()
            self._paint()

    def _is_armed(self) -> bool:
        return self._clock() - self._quiet_since >= GRACE

    def _pick(self, choice: int) -> None:
        self._choice = choice % len(self._choices)
        self._paint()

    def _decide(self, choice: int) -> None:
        if choice == 0:
            self._answer(Decision("allow"))
        elif choice == 1:
            self._answer(Decision("allow-session"))
        else:
            self._choice = choice
            self.add_class("denying")
            self._paint()
            self.query_one("#reason", Input).focus()

    def _answer(self, decision: Decision) -> None:
        self.post_message(self.Decided(self._request, decision))

    def _paint(self) -> None:
        rows = []
        for index, choice in enumerate(self._choices):
            picked = index == self._choice
            mark = "›" if picked else " "
            style = "bold $text-primary" if picked else ""
            rows.append(Content.styled(f"{mark} {index + 1} {choice}", style))
        self.query_one("#choices", Static).update(Content("\n").join(rows))
        denying = self.has_class("denying")
        hint = "Enter denies · Esc back" if denying else "1-3 or ↑↓ Enter · Esc denies"
        self.query_one("#hint", Static).update(Content(hint))


def scope(request: ApprovalRequest) -> str:
    """What an answer for the session covers."""
    return "this command" if request.effect == "execute" else f"every {visible(request.tool)}"


def approval_content(request: ApprovalRequest) -> Content:
    """What is to be approved: why it is asked, the arguments and the change; nothing left out."""
    change = written_lines(request.tool, request.arguments, exact=True)
    shown_apart = _IN_CHANGE if change else ()
    rest = {key: value for key, value in request.arguments.items() if key not in shown_apart}
    parts = []
    if request.reason:
        parts.append(Content.styled(one_line(request.reason), "$muted"))
    if hides_something(request.arguments):
        warning = "It holds invisible or control characters, written out below."
        parts.append(Content.styled(warning, "bold $text-warning"))
    parts.append(Content.styled(arguments_text(request.tool, rest), "bold"))
    parts.extend(change_rows(change, str(request.arguments.get("path", ""))))
    return Content("\n").join(parts)
