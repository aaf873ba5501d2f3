"""What a call that changes a file would make of it, as a diff, before anybody allows it.

In: a call's arguments and where its path really leads. Out: a unified diff, or one line why there
is none. Reads the file and nothing else; the call itself checks everything again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Preview", "preview"]

LARGEST = 4 * 1024 * 1024  # bytes


@dataclass(frozen=True)
class Preview:
    """`diff` is "" where there is none, and `note` says why."""

    diff: str = ""
    note: str = ""


def preview(tool: str, arguments: Mapping[str, Any], real: str) -> Preview:
    """The diff of an `edit` or a `write`."""
    from ds4_agent.tools.difference import unified

    if tool not in ("edit", "write") or not real:
        return Preview(note="This call changes no file by itself.")
    try:
        data = _read(Path(real))
    except OSError as error:
        return Preview(note=f"The file cannot be read: {error.strerror or error}.")
    if data is None and tool == "edit":
        return Preview(note="There is no such file.")
    before, after = _texts(tool, arguments, data)
    if isinstance(after, str) and isinstance(before, str):
        diff = unified(str(arguments.get("path", real)), before, after)
        return Preview(diff) if diff else Preview(note="The file would stay as it is.")
    return Preview(note=before or "The file cannot be read as text.")


def _texts(tool: str, arguments: Mapping[str, Any], data: bytes | None) -> tuple[str, str | None]:
    """The file before and after; after None: a line why not."""
    from ds4_agent.tools.edit import find, replaced
    from ds4_agent.tools.text import decode

    text = decode(data) if data is not None else None
    if tool == "write":
        if data is not None and text is None:
            return "The file is not text; all of it would be replaced.", None
        return text.content if text else "", str(arguments.get("content", ""))
    if text is None:
        return "The file is not text.", None
    old, new = str(arguments.get("old", "")), str(arguments.get("new", ""))
    spans = find(text, old, whole_word=arguments.get("whole_word") is True) if old else []
    if not spans:
        return "The old text is not in the file: the call would change nothing.", None
    if len(spans) > 1 and arguments.get("replace_all") is not True:
        return f"The old text is in the file {len(spans)} times: the call would fail.", None
    return text.content, replaced(text, spans, new)


def _read(file: Path) -> bytes | None:
    """The bytes of a regular file, None where nothing is. Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        descriptor = os.open(file, flags)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        if status.st_size > LARGEST:
            raise OSError("it is too large to be compared here")
        return opened.read()
