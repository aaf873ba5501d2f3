"""The question whether a call may run, in place of the input.

In: an `ApprovalRequest`. Out: one `Decided` message. What is shown is the call to its last
character, with everything invisible written out. For the first half second, and for half a second
after each key that came too early or is no answer, no key decides: typing meant for the prompt goes
there.
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
from ds4_agent.agent.events import ApprovalRequest, Behaviour, Decision
from ds4_agent.agent.preview import preview
from ds4_agent.tui.change import change_rows
from ds4_agent.tui.describe import arguments_text, diff_lines, hides_something, written_lines

__all__ = ["GRACE", "ApprovalPanel"]

GRACE = 0.5  # seconds without a key before keys decide
_IN_CHANGE = ("old", "new", "content")  # arguments shown as a change, not as text


class ApprovalPanel(Vertical, can_focus=True):
    """One question. Keys: digits, y, n, arrows and Enter; d shows the whole diff; Esc denies."""

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
        & > #choices { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
        & #exact { width: 1fr; }
        & > #reason { display: none; border: none; height: 1; padding: 0 1; background: $surface; }
        & > #hint { height: 1; color: $faint; text-wrap: nowrap; text-overflow: ellipsis; }
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
        self._choices = choices(request)
        self._shows_diff = False
        self._is_typed = False  # something for the prompt, whose Enter is still to come

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
        height = self.app.size.height
        room = height - len(self._choices) - 6
        wanted = room if self._shows_diff else min(room, height * 2 // 5)
        self.query_one("#subject").styles.max_height = max(3, wanted)

    def on_key(self, event: events.Key) -> None:
        if self.has_class("denying"):
            self._key_while_denying(event)
            return
        event.stop()
        event.prevent_default()
        is_typing = event.is_printable and event.key not in self._keys()
        if self._is_armed() and not is_typing:
            self._act(event.key)
            return
        self._quiet_since = self._clock()
        if event.is_printable and event.character:
            self._is_typed = True
            self.post_message(self.TypedAhead(event.character))

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
        elif key == "enter" and self._is_typed:  # it ends what was typed for the prompt
            self._is_typed = False
        elif key == "enter":
            self._decide(self._choice)
        elif key.isdecimal() and 1 <= int(key) <= len(self._choices):
            self._decide(int(key) - 1)
        elif key == "y":
            self._decide(0)
        elif key == "n":
            self._decide(len(self._choices) - 1)
        elif key == "d" and self._has_diff():
            self._toggle_diff()
        elif key == "escape":
            self._answer(Decision("deny"))
        elif key in ("pageup", "pagedown"):
            subject = self.query_one("#subject", VerticalScroll)
            subject.scroll_page_up() if key == "pageup" else subject.scroll_page_down()

    def _keys(self) -> set[str]:
        """The printable keys that mean something here."""
        digits = {str(number + 1) for number in range(len(self._choices))}
        return {"y", "n", "j", "k", *digits, *(["d"] if self._has_diff() else [])}

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
        self._is_typed = False
        self._choice = choice % len(self._choices)
        self._paint()

    def _has_diff(self) -> bool:
        return self._request.tool in ("edit", "write")

    def _toggle_diff(self) -> None:
        """The whole file's diff in place of what the call says, or that again."""
        self._shows_diff = not self._shows_diff
        content = diff_content(self._request) if self._shows_diff else None
        self.query_one("#exact", Static).update(content or approval_content(self._request))
        self.fit()
        self._paint()

    def _decide(self, choice: int) -> None:
        behaviour = self._choices[choice][0]
        if behaviour != "deny":
            self._answer(Decision(behaviour))
        else:
            self._choice = choice
            self.add_class("denying")
            self._paint()
            self.query_one("#reason", Input).focus()

    def _answer(self, decision: Decision) -> None:
        self.post_message(self.Decided(self._request, decision))

    def _paint(self) -> None:
        rows = []
        for index, (_, choice) in enumerate(self._choices):
            picked = index == self._choice
            mark = "›" if picked else " "
            style = "bold $text-primary" if picked else ""
            rows.append(Content.styled(f"{mark} {index + 1} {choice}", style))
        self.query_one("#choices", Static).update(Content("\n").join(rows))
        denying = self.has_class("denying")
        keys = f"1-{len(self._choices)} or ↑↓ Enter · Esc denies"
        if self._has_diff():
            keys = f"{'d call' if self._shows_diff else 'd diff'} · {keys}"
        hint = "Enter denies · Esc back" if denying else keys
        self.query_one("#hint", Static).update(Content(hint))


def scope(request: ApprovalRequest) -> str:
    """What an answer for the session covers."""
    return "this command" if request.effect == "execute" else f"every {visible(request.tool)}"


def choices(request: ApprovalRequest) -> tuple[tuple[Behaviour, str], ...]:
    """What can be answered, in the order of the keys; for ever only where a rule means just it."""
    always: tuple[tuple[Behaviour, str], ...] = ()
    if request.rule:
        always = (("allow-always", f"Always allow {lasting(request)} (a rule in config.toml)"),)
    session: Behaviour = "allow-session"
    once: Behaviour = "allow"
    refusal: Behaviour = "deny"
    return (
        (once, "Allow once"),
        (session, f"Allow {scope(request)} in this session"),
        *always,
        (refusal, "Deny"),
    )


def lasting(request: ApprovalRequest) -> str:
    """What the rule of an answer for ever covers: nothing else, but wherever the user works."""
    return "this command" if request.tool == "bash" else f"{visible(request.tool)} of this path"


def diff_content(request: ApprovalRequest) -> Content:
    """What the file would become, with the lines around each change."""
    shown = preview(request.tool, request.arguments, request.real)
    head = Content.styled(visible(request.real, exact=True), "bold")
    if not shown.diff:
        return Content("\n").join([head, Content.styled(visible(shown.note), "$text-warning")])
    return Content("\n").join(
        [head, *change_rows(diff_lines(shown.diff), str(request.arguments.get("path", "")))]
    )


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
    if request.real:  # every link resolved: what the path says may not be where it leads
        parts.append(Content.styled(f"→ {visible(request.real, exact=True)}", "$muted"))
    parts.extend(change_rows(change, str(request.arguments.get("path", ""))))
    return Content("\n").join(parts)
