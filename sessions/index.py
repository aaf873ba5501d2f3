"""What is known of the sessions of a directory, kept so that a list need not open their logs.

In and out: rows of JSON values by session. Derived from the logs, and never trusted over them: a
row holds while size and time of its log are the ones it was made from. One file, `.index`, that
anybody may delete: a checksum over the rest in 8 hex digits, a newline, JSON. What is wrong with it
costs only time.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Row", "load_index", "store_index"]

Row = list[Any]
FILE, UNFINISHED = ".index", ".index.new"


def load_index(root: Path, version: int) -> dict[str, Row]:
    """The rows by session; empty where there is no index of this version."""
    try:
        descriptor = os.open(
            root / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        with open(descriptor, "rb") as file:
            check, _, text = file.read().partition(b"\n")
    except OSError:
        return {}
    if check != _check(text):
        return {}
    content = json.loads(text)
    rows: dict[str, Row] = content["rows"] if content["version"] == version else {}
    return rows


def store_index(root: Path, version: int, rows: Mapping[str, Row]) -> None:
    """Keep rows for the next time, or not, where nothing can be written."""
    text = json.dumps({"version": version, "rows": rows}, separators=(",", ":")).encode("ascii")
    # One name for whatever is not finished, so that killed processes leave one file and not many.
    # Two that write it at once spoil it for each other, which the checksum tells.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(OSError):
        with open(os.open(root / UNFINISHED, flags, 0o600), "wb") as file:
            file.write(_check(text) + b"\n" + text)
        os.replace(root / UNFINISHED, root / FILE)


def _check(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
