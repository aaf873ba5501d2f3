"""Our own search, for machines without ripgrep; a process of its own, because it can be killed.

Run as a script (`python -I -S search_worker.py`), standard library only. In, on stdin: one JSON
object {pattern, is_regex, context, limit, files}. Out: one JSON object a file with matches,
{file, lines: [[number, text, matched], …]}, or one {error}. Python's `re` cannot be interrupted
and takes for ever on patterns like `(a+)+$`: hence the process.
"""

import importlib.util
import json
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

SIZE_LIMIT = 64 * 1024 * 1024


def main() -> None:
    text = load_text_module()
    asked = json.load(sys.stdin)
    try:
        matcher = line_matcher(asked["pattern"], is_regex=asked["is_regex"])
    except (re.error, OverflowError, RecursionError) as error:
        say({"error": str(error)})
        return
    left = asked["limit"]
    for number, path in enumerate(asked["files"]):
        data = content(path)
        decoded = text.decode(data) if data is not None else None
        if decoded is None:
            if data is None:
                say({"file": number, "skipped": True})
            continue
        lines = [text.shown(line) for line in text.lines(decoded.content)]
        found = [index for index, line in enumerate(lines) if matcher(line)][:left]
        if found:
            say({"file": number, "lines": with_context(lines, found, asked["context"])})
        left -= len(found)
        if left <= 0:
            return


def line_matcher(pattern: str, *, is_regex: bool) -> Callable[[str], object]:
    if is_regex:
        return re.compile(pattern).search
    return lambda line: pattern in line


def content(path: str) -> bytes | None:
    """The bytes of a regular file; b"" for what cannot be read, None for what is too large."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return b""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        try:
            data = file.read(SIZE_LIMIT + 1)
        except OSError:
            return b""
    return data if len(data) <= SIZE_LIMIT else None


def with_context(lines: list[str], found: list[int], context: int) -> list[list[Any]]:
    matched = set(found)
    near = {
        index
        for hit in found
        for index in range(max(0, hit - context), min(len(lines), hit + context + 1))
    }
    return [[index + 1, lines[index], index in matched] for index in sorted(near)]


def load_text_module() -> ModuleType:
    # By its path: this directory must not be on sys.path, its types.py would hide Python's own.
    spec = importlib.util.spec_from_file_location("ds4_text", Path(__file__).with_name("text.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ds4_text"] = module
    spec.loader.exec_module(module)
    return module


def say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
