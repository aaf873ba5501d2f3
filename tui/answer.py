"""An answer: Markdown that grows while the model writes, in which nothing vanishes.

In: pieces of text. They pass `agent.display` and reach the widget as Markdown source. A module of
its own because Markdown takes a third of the time to the first frame: nobody imports it before.
"""

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownFence

from ds4_agent.agent.display import VisibleStream
from ds4_agent.tui.code import code_content

__all__ = ["PART_LIMIT", "AnswerMessage", "AnswerPart", "answer_parser", "split_part"]

PART_LIMIT = 6000  # characters of one Markdown widget: each append costs its whole length


class AnswerMessage(VerticalGroup):
    """An answer, rendered as Markdown while it comes. A long one is several parts."""

    DEFAULT_CSS = """
    AnswerMessage AnswerPart > MarkdownParagraph { margin: 1 0 0 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._stream = VisibleStream()
        self._part: AnswerPart | None = None
        self._unshown = ""

    async def add(self, text: str) -> None:
        """Append to the answer and wait until it is laid out."""
        await self._show(self._stream.feed(text))

    async def finish(self) -> None:
        """The answer is whole: lay the last part out once more, in one go.

        Appending leaves a stale block behind now and then (textual#6518).
        """
        await self._show(self._stream.finish())
        if self._part is not None:
            await self._part.update(self._part.source)

    async def _show(self, text: str) -> None:
        text = self._unshown + text
        if self._part is None:
            text = text.lstrip("\n")
        if not text.strip():
            self._unshown = text
            return
        self._unshown = ""
        part = self._part or await self._next_part()
        here, rest = split_part(part.source, text)
        if here:
            await part.append(here)
        if rest:
            await part.update(part.source)
            await (await self._next_part()).append(rest)

    async def _next_part(self) -> "AnswerPart":
        self._part = AnswerPart()
        await self.mount(self._part)
        return self._part


class CodeBlock(MarkdownFence):
    """Fenced code in our colours. (Textual's own guesses a language that is not named, which takes
    longer than a frame each time a line comes.)"""

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        return code_content(code, language=language.strip().partition(" ")[0])


class AnswerPart(Markdown):
    """A stretch of an answer. HTML and entities are shown as they are written; a link does nothing
    when clicked, because what it says need not be where it goes."""

    DEFAULT_CSS = """
    AnswerPart {
        padding: 0 1 0 3;
        /* Above and not below: a rule for the last one is looked up again for every new one. */
        & > MarkdownBulletList, & > MarkdownOrderedList,
        & > MarkdownBlockQuote, & > MarkdownTable, & > MarkdownHorizontalRule, & > MarkdownFence,
        & > MarkdownHeader { margin: 1 0 0 0; }
        & > MarkdownFence { background: $surface; color: $foreground; }
        & MarkdownFence > Label { padding: 0 1; width: 100%; text-wrap: wrap; }
        & > MarkdownHeader { content-align: left middle; }
    }
    """

    def __init__(self) -> None:
        super().__init__(parser_factory=answer_parser, open_links=False)

    BLOCKS = {**Markdown.BLOCKS, "fence": CodeBlock, "code_block": CodeBlock}  # noqa: RUF012


def split_part(source: str, text: str) -> tuple[str, str]:
    """What of `text` still goes behind `source`, and what begins the next part.

    A part ends once it is long, between two paragraphs and outside of fenced code.
    """
    if len(source) + len(text) <= PART_LIMIT:
        return text, ""
    whole = source + text
    cut = whole.find("\n\n", max(0, len(source) - 2))
    if cut < 0 or not whole[cut:].strip():
        return text, ""
    lines = whole[:cut].split("\n")
    fences = sum(line.lstrip().startswith(("```", "~~~")) for line in lines)
    if fences % 2:
        return text, ""
    return whole[len(source) : cut], whole[max(cut, len(source)) :].lstrip("\n")


def answer_parser() -> MarkdownIt:
    """Markdown in which nothing vanishes: HTML, entities and underscores are literal, and a line
    break is one; a link tells where it goes. (`__init__` is more often a name than bold.)"""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.disable(["entity", "html_inline", "html_block"])
    parser.inline.ruler.before("emphasis", "underscores", _literal_underscores)
    parser.core.ruler.push("line_breaks", _keep_line_breaks)
    parser.core.ruler.push("link_targets", _show_link_targets)
    return parser


def _literal_underscores(state: StateInline, silent: bool) -> bool:
    end = state.pos
    while end < state.posMax and state.src[end] == "_":
        end += 1
    if end == state.pos:
        return False
    if not silent:
        state.pending += state.src[state.pos : end]
    state.pos = end
    return True


def _keep_line_breaks(state: StateCore) -> None:
    for block in state.tokens:
        for token in block.children or ():
            if token.type == "softbreak":
                token.type = "hardbreak"


def _show_link_targets(state: StateCore) -> None:
    for block in state.tokens:
        shown: list[Token] = []
        target, words = "", ""
        for token in block.children or ():
            shown.append(token)
            if token.type in ("link_open", "image"):
                attribute = "src" if token.type == "image" else "href"
                target, words = str(token.attrs.get(attribute, "")), ""
            elif token.type in ("text", "code_inline"):
                words += token.content
            if token.type in ("link_close", "image") and target and target != words:
                shown.append(Token("text", "", 0, content=f" ({target})"))
        if block.children:
            block.children = shown
