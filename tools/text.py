"""Bytes of a file as text and back, losing nothing: encoding, byte order mark, line ends.

In: the bytes of a file. Out: a `Text` for which `encode(form, text) == bytes` holds exactly.
Lines are cut at "\\n" only, as git, compilers and editors do.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

# The longer mark first: the one of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
Newline = Literal["\n", "\r\n", "mixed"]
UNDECODABLE = re.compile("[\udc80-\udcff]")
MULTIBYTE = re.compile(rb"[\xc3-\xf4][\x80-\xbf]+")


@dataclass(frozen=True)
class Text:
    """A decoded file. `errors` is surrogateescape where single bytes are no valid UTF-8."""

    content: str
    codec: str
    mark: bytes
    newline: Newline
    errors: str = "strict"

    @property
    def note(self) -> str:
        """What the reader has to know about the bytes behind the text ("" when nothing)."""
        notes = []
        if self.codec != "utf-8":
            notes.append(self.codec)
        if self.errors != "strict":
            notes.append(f"{len(UNDECODABLE.findall(self.content))} bytes that are no UTF-8 as �")
        if self.newline != "\n":
            notes.append("CRLF line ends" if self.newline == "\r\n" else "mixed line ends")
        return f" ({', '.join(notes)})" if notes else ""


def decode(data: bytes) -> Text | None:
    """The text of `data`, or None when it is binary."""
    for mark, codec in MARKS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], codec, mark)
    if b"\0" in data:
        return None
    text = _decoded(data, "utf-8", b"")
    if text is not None:
        return text
    if not MULTIBYTE.search(data):  # no UTF-8 in it at all: an old single-byte encoding
        return _decoded(data, "cp1252", b"") or _decoded(data, "latin-1", b"")
    content = data.decode("utf-8", "surrogateescape")
    return Text(content, "utf-8", b"", _newline(content), "surrogateescape")


def encode(form: Text, content: str) -> bytes:
    """`content` as bytes of the same encoding. Raises UnicodeEncodeError."""
    return form.mark + content.encode(form.codec, form.errors)


def lines(content: str) -> list[str]:
    """The lines without their line ends; a trailing line end begins no further line."""
    found = content.split("\n")
    if found[-1] == "":
        found.pop()
    return found


def shown(line: str) -> str:
    """A line as the model sees it: no carriage return at its end, nothing undecodable."""
    return UNDECODABLE.sub("�", line.removesuffix("\r"))


def _decoded(data: bytes, codec: str, mark: bytes) -> Text | None:
    try:
        content = data.decode(codec)
    except UnicodeDecodeError:
        return None
    if "\0" in content or content.encode(codec) != data:
        return None
    return Text(content, codec, mark, _newline(content))


def _newline(content: str) -> Newline:
    crlf = content.count("\r\n")
    if not crlf:
        return "\n"
    return "\r\n" if crlf == content.count("\n") else "mixed"
