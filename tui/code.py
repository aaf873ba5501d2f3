"""Code in colours: the same few for a block of an answer and for a change that is being written.

In: displayable text, and a file name or the language's. Out: `Content` in the theme's `code-*`
colours, character for character the text that came in. An unknown language is plain text; nothing
is guessed, which would cost more than the model's own speed.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from textual.content import Content, Span

if TYPE_CHECKING:
    from pygments.lexer import Lexer

__all__ = ["code_content", "code_lines"]

LONGEST = 60_000  # characters that are worth their colours; beyond, it is data
# By the most telling of Pygments' token types, the first that holds.
_STYLES = (
    ("Token.Comment", "italic $code-comment"),
    ("Token.Literal.String.Interpol", "$code-number"),
    ("Token.Literal.String.Doc", "$code-comment"),
    ("Token.Literal.String", "$code-string"),
    ("Token.Literal.Number", "$code-number"),
    ("Token.Keyword.Constant", "$code-number"),
    ("Token.Keyword", "$code-keyword"),
    ("Token.Operator.Word", "$code-keyword"),
    ("Token.Name.Function", "$code-name"),
    ("Token.Name.Class", "$code-name"),
    ("Token.Name.Decorator", "$code-name"),
    ("Token.Name.Tag", "$code-keyword"),
    ("Token.Name.Attribute", "$code-name"),
    ("Token.Name.Builtin", "$code-builtin"),
    ("Token.Name.Exception", "$code-builtin"),
    ("Token.Generic.Heading", "bold"),
    ("Token.Generic.Subheading", "bold"),
    ("Token.Generic.Strong", "bold"),
    ("Token.Generic.Emph", "italic"),
    ("Token.Generic.Inserted", "$text-success"),
    ("Token.Generic.Deleted", "$text-error"),
)


def code_content(text: str, *, path: str = "", language: str = "") -> Content:
    """`text` coloured as what `path` or `language` names. Costs about 1 ms for 100 lines."""
    lexer = _lexer(path.rpartition("/")[2], language)
    if lexer is None or len(text) > LONGEST:
        return Content(text)
    spans, place = [], 0
    for _, kind, piece in lexer.get_tokens_unprocessed(text):
        style = _style(kind)
        if style and piece:
            spans.append(Span(place, place + len(piece), style))
        place += len(piece)
    # A lexer that drops or invents characters would shift every colour behind it.
    return Content(text, spans=spans) if place == len(text) else Content(text)


def code_lines(text: str, *, path: str = "", language: str = "") -> list[Content]:
    """The same, a `Content` a line."""
    return code_content(text, path=path, language=language).split("\n", allow_blank=True)


@lru_cache(maxsize=64)
def _lexer(name: str, language: str) -> "Lexer | None":
    from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
    from pygments.util import ClassNotFound

    try:
        if language:
            return get_lexer_by_name(language)
        return get_lexer_for_filename(name) if name else None
    except ClassNotFound:
        return None


@lru_cache(maxsize=512)
def _style(kind: object) -> str:
    name = str(kind)
    return next((style for prefix, style in _STYLES if name.startswith(prefix)), "")
