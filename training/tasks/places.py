"""What a policy reads off a result: lines of a file, rows of a search, a text that occurs once.

In: the text of a `read` or `search` result. Out: plain values. A policy that looks before it edits
decides with these alone, so what is right never depends on more than the model has seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ROW = re.compile(r"(.*?):(\d+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """One match of a `search` result."""

    path: str
    line: int
    text: str


def page(result: str) -> list[str]:
    """The lines of a successful `read` result; none of an empty file."""
    _, newline, body = result.partition("\n")
    return body.split("\n") if newline else []


def rows(result: str) -> list[Row]:
    """The matches of a `search` result without context."""
    found = [ROW.fullmatch(line) for line in result.split("\n")]
    return [Row(match[1], int(match[2]), match[3]) for match in found if match]


def paths_with(result: str, name: str) -> list[str]:
    """The files of a `search` result in which `name` stands as a whole word, in order."""
    word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    return list(dict.fromkeys(row.path for row in rows(result) if word.search(row.text)))


def tail(lines: list[str]) -> str:
    """The shortest run of last lines that occurs once: what an addition is put behind."""
    whole = "\n".join(lines)
    for start in range(len(lines) - 1, -1, -1):
        block = "\n".join(lines[start:])
        if whole.count(block) == 1:
            return block
    return whole


def head(lines: list[str], start: int) -> str:
    """The shortest run of lines from `start` that occurs once: what an addition is put before."""
    whole = "\n".join(lines)
    for end in range(start + 1, len(lines) + 1):
        block = "\n".join(lines[start:end])
        if whole.count(block) == 1:
            return block
    return whole


def function_line(lines: list[str], name: str) -> int | None:
    """Where the function `name` is defined."""
    shape = definition(name)
    return next((i for i, line in enumerate(lines) if shape.match(line)), None)


def definition(name: str) -> re.Pattern[str]:
    """Matches the beginning of a function's definition."""
    return re.compile(
        rf"\s*(?:async |export |pub |static )*(?:def|function|func|fn) {re.escape(name)}\("
    )


def assigned(line: str, name: str, value: str) -> str | None:
    """`line` with `value` on the right of `name`, if it is where `name` gets its value."""
    words = r"(?:(?:const|let|var|export|static|final|int|local)\s+)*"
    sign = r"(?::\s*[A-Za-z_][\w\[\], |.]* = |:=|=(?!=)|:)"  # the first with an annotation
    shape = rf"(\s*{words}([\"']?){re.escape(name)}\2\s*{sign}\s*)(.*?)([;,]?)"
    match = re.fullmatch(shape, line)
    return f"{match[1]}{value}{match[4]}" if match and match[3] else None


def indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def sentence_of(name: str) -> str:
    """A docstring nobody gave: the words of the name. `load_config` says "load config.", for with
    a capital letter a word is other tokens, and no copy."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return " ".join(words).lower() + "."
