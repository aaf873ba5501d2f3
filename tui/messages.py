"""What the transcript is made of: the banner, the user's prompt, thinking, a notice.

In: pieces of text. Untrusted text passes `agent.display` here and reaches a widget as `Content`,
never as markup. Each widget owns its look and knows nothing about the agent.
"""

from textual.content import Content
from textual.widgets import Static

from ds4_agent.agent.display import VisibleStream, visible
from ds4_agent.tui.describe import hung, plural, prompt_text

__all__ = ["Banner", "EarlierMessage", "NoticeMessage", "ThinkingMessage", "UserMessage"]


class Banner(Static):
    """Name, version, model and directory, at the head of the transcript."""

    DEFAULT_CSS = """
    Banner { padding: 1 1 0 1; color: $muted; }
    """

    def show(self, version: str, model: str, directory: str, hint: str = "") -> None:
        """Fill the banner; `model` is empty while it loads, `hint` is a second line."""
        model = f" · {visible(model)}" if model else ""
        about = f" {visible(version)}{model} · {visible(directory)}"
        pieces = [("ds4-agent", "bold $text-primary"), (about, "")]
        if hint:
            pieces.append(("\n" + visible(hint), "$faint"))
        self.update(Content.assemble(*pieces))


class UserMessage(Static):
    """What the user asked."""

    DEFAULT_CSS = """
    UserMessage {
        margin: 1 0 0 0; padding: 0 1 0 2; background: $panel; border-left: outer $primary;
    }
    """

    def __init__(self, text: str) -> None:
        self.prompt = text
        self.text = visible(prompt_text(text))
        super().__init__(Content.styled(self.text, "bold"))


class NoticeMessage(Static):
    """A remark of the program, of level "info", "warning" or "error"."""

    DEFAULT_CSS = """
    NoticeMessage {
        margin: 1 0 0 0; padding: 0 1 0 3; color: $muted;
        &.warning { color: $text-warning; }
        &.error { color: $text-error; }
    }
    """

    def __init__(self, text: str, level: str = "info") -> None:
        self.text = visible(text)
        super().__init__(Content(self.text), classes=level)

    def on_resize(self) -> None:
        self.update(Content(hung(self.text, self.content_size.width)))


class EarlierMessage(Static):
    """How much of the session is above what is laid out."""

    DEFAULT_CSS = """
    EarlierMessage { margin: 1 0 0 0; padding: 0 1 0 3; color: $faint; }
    """

    def show(self, prompts: int) -> None:
        """`prompts` of the user are above."""
        self.update(Content(f"▴ {plural(prompts, 'earlier prompt')}: scroll up"))


class ThinkingMessage(Static):
    """Reasoning: one line with its length; the text is laid out only when it is opened."""

    DEFAULT_CSS = """
    ThinkingMessage { margin: 1 0 0 0; padding: 0 1; color: $muted; }
    """

    def __init__(self, *, is_open: bool = False) -> None:
        super().__init__(Content(""))
        self._stream = VisibleStream()
        self._pieces: list[str] = []
        self._length = 0
        self._is_growing = True
        self.is_open = is_open

    @property
    def text(self) -> str:
        """All of it so far; displayable."""
        return "".join(self._pieces).strip()

    def add(self, text: str) -> None:
        """More reasoning."""
        self._pieces.append(self._stream.feed(text))
        self._length += len(text)
        self._paint()

    def finish(self) -> None:
        """The reasoning is over."""
        self._is_growing = False
        self._paint()

    def toggle(self, is_open: bool) -> None:
        """Show the text, or only its length."""
        self.is_open = is_open
        self._paint()

    def on_click(self) -> None:
        self.toggle(not self.is_open)

    def on_resize(self) -> None:
        if self.is_open:
            self._paint()

    def _paint(self) -> None:
        verb = "thinking" if self._is_growing else "thought"
        arrow = "▾" if self.is_open else "▸"
        length = plural(self._length, "character")
        head = Content.assemble((f"✻ {verb}", "italic"), (f" {length} {arrow}", "$faint"))
        if self.is_open:
            # Wrapped here, so that every row of it stands below the first word.
            rows = Content(self.text).wrap(max(20, (self.content_size.width or 80) - 2))
            head = Content("\n  ").join([head, *rows])
        self.update(head)
