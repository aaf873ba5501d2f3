"""The choke point: untrusted text in, text that may be shown on a terminal out.

Everything the model, a tool, a file, git or the environment says passes through here before it
reaches a widget or the plain prompt. What comes out holds no byte a terminal acts on and nothing
invisible; it is never markup, the caller wraps it in a `Content` or prints it as it is.
"""

import re
import unicodedata

__all__ = ["VisibleStream", "has_hidden", "one_line", "visible"]

# C0 without \t and \n, DEL, C1; soft hyphen, bidi marks, zero-width characters, invisible fillers,
# line and paragraph separators, lone surrogates, variation selectors, the format controls of
# interlinear, hieroglyph, shorthand and musical text, tag characters. A test compares this with
# Unicode's own list.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_EMOJI_STYLE = "\ufe0f"


def visible(text: str, *, exact: bool = False) -> str:
    """`text` with everything that acts or hides made visible; newlines and tabs stay.

    Control bytes become their pictures (`␛`), the rest its code point (`\\u202e`). Windows line
    ends become plain ones and the emoji selector behind a symbol goes, unless `exact`: what a
    person approves is shown to the last character.
    """
    if text.isascii() and text.isprintable():
        return text
    if not exact:
        text = text.replace("\r\n", "\n")
    return _HIDDEN.sub(lambda match: _shown(match, exact), text)


def has_hidden(text: str) -> bool:
    """Whether `text` holds a character that acts or hides. Windows line ends do not count."""
    return _HIDDEN.search(text.replace("\r\n", "\n")) is not None


def one_line(text: str, limit: int = 200) -> str:
    """`text` made visible on a single line of at most `limit` characters, the end cut with `…`."""
    flat = " ".join(visible(text[: limit * 4]).split())
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


class VisibleStream:
    """`visible` for text that comes in pieces: their sum is what one piece would have given."""

    def __init__(self) -> None:
        self._held = ""  # a carriage return that may be half of a line end
        self._symbol = ""  # the symbol the last piece ended with, if any

    def feed(self, piece: str) -> str:
        """What of the text so far can be shown now."""
        text = self._held + piece
        self._held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r")
        shown = visible(self._symbol + text)[len(self._symbol) :]
        if text:
            self._symbol = text[-1] if _is_symbol(text[-1]) else ""
        return shown

    def finish(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return visible(held)


def _shown(match: re.Match[str], exact: bool) -> str:
    character = match.group()
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    before = match.string[match.start() - 1] if match.start() else ""
    if character == _EMOJI_STYLE and not exact and _is_symbol(before):
        return ""
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8 (surrogateescape)
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _is_symbol(character: str) -> bool:
    return bool(character) and (
        character in "#*0123456789‼⁉" or unicodedata.category(character)[0] == "S"
    )
