"""Words for calls, results and numbers, shared by the screen and the plain prompt.

In: tool names, arguments, results, counts. Out: short displayable strings; every untrusted piece
has passed `text.visible`. No widget, no terminal, no state.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import Literal

from ds4_agent.agent.display import has_hidden, one_line, visible
from ds4_agent.agent.events import CallFinished, CallReady, Event, Notice
from ds4_agent.agent.material import typed

__all__ = [
    "DiffLine",
    "arguments_text",
    "bar",
    "call_line",
    "count",
    "diff_lines",
    "hides_something",
    "hung",
    "plural",
    "prompt_text",
    "result_line",
    "seconds",
    "task_line",
    "went_wrong",
    "written_lines",
]

_LINE = 240  # characters of a call's one line before it is cut
_PROMPT_LINES = 20  # of a prompt, before it is cut
_COLUMNS = re.compile(r"\S+(?: \S+)* {2,}(?=\S)")
_NARROW_INDENT = 4  # of the second column where it is put below the first
_BREAK = re.compile(r"\s*\n\s*")  # runs on when read as one line: it is no blank
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")


@dataclass(frozen=True)
class DiffLine:
    """A displayable line of a change. `number` 0 is unknown; "@" marks a remark of the diff."""

    mark: Literal["-", "+", " ", "@"]
    text: str
    number: int = 0


def call_line(name: str, arguments: Mapping[str, object]) -> str:
    """A call in one line as a person would say it: `edit src/a.py`, `$ pytest -q`."""
    path = arguments.get("path")
    if name == "bash":
        background = " &" if arguments.get("background") in (True, "true") else ""
        command = _BREAK.sub(" ⏎ ", str(arguments.get("command", "")).strip())
        line = f"$ {command}{background}"
    elif name == "read":
        start = arguments.get("start_line")
        line = f"read {path or ''}" + (f" from line {start}" if start else "")
    elif name == "search":
        where = f" in {path}" if path else ""
        line = f"search {arguments.get('pattern', '')}{where}"
    elif name == "list":
        line = f"list {path or '.'}"
    elif name in ("write", "edit"):
        line = f"{name} {path or ''}"
    elif name == "git":
        words = [value for key, value in arguments.items() if not isinstance(value, bool)]
        line = " ".join(["git", *map(str, words)])
    elif name == "task":
        where = "task in a worktree" if arguments.get("isolate") else "task"
        if "alternative" in arguments:
            where = f"alternative {arguments['alternative']}"
        line = f"{where}: {arguments.get('prompt', '')}"
    else:
        line = " ".join([name, *(f"{key}={_plain(value)}" for key, value in arguments.items())])
    return one_line(line.strip(), _LINE)


def prompt_text(prompt: str) -> str:
    """A prompt as a reader wants it: the words, of long ones the beginning, and the names of what
    stands below them. Not displayable yet."""
    said = typed(prompt)
    lines = said.text.split("\n")
    hidden = len(lines) - _PROMPT_LINES
    if hidden > 1:
        lines = [*lines[:_PROMPT_LINES], f"… {plural(hidden, 'more line')}"]
    return "\n".join([*lines, *(f"+ {name}" for name in said.below)])


def result_line(name: str, content: str, *, is_error: bool) -> str:
    """A result in one line. The tools say what they did first; a search counts at its end."""
    lines = [line for line in content.split("\n") if line.strip()]
    if not lines:
        return "no output"
    counts_last = name == "search" and not is_error
    return one_line(lines[-1] if counts_last else lines[0], _LINE)


def task_line(event: Event) -> str:
    """What a sub-agent does, in one line; "" for what nobody has to see of it."""
    match event:
        case CallReady(_, name, arguments):
            return call_line(name, arguments)
        case CallFinished(_, name, content, is_error):
            failed = went_wrong(name, content, is_error=is_error)
            return f"  {result_line(name, content, is_error=is_error)}" if failed else ""
        case Notice(text):
            return one_line(text, _LINE)
    return ""


def went_wrong(name: str, content: str, *, is_error: bool) -> bool:
    """Whether a person would call it a failure: an error, or a command that ended badly."""
    return is_error or (name == "bash" and not content.startswith(("exit code 0", "started job")))


def written_lines(
    name: str, arguments: Mapping[str, object], *, exact: bool = False
) -> list[DiffLine]:
    """What a call is about to change, as far as it is written; empty for calls that change no
    file. `exact` as in `text.visible`."""
    removed = str(arguments.get("old", "")) if name == "edit" else ""
    key = {"edit": "new", "write": "content"}.get(name, "")
    added = str(arguments.get(key, ""))
    return [
        *(DiffLine("-", line) for line in _lines(removed, exact)),
        *(DiffLine("+", line) for line in _lines(added, exact)),
    ]


def diff_lines(diff: str) -> list[DiffLine]:
    """A unified diff as numbered lines; its headers go, a gap between hunks is a line `⋯`."""
    shown: list[DiffLine] = []
    old = new = 0
    for line in _lines(diff):
        mark, text = line[:1], line[1:]
        hunk = _HUNK.match(line)
        if hunk:
            old, new = int(hunk[1]), int(hunk[2])
            if shown:
                shown.append(DiffLine("@", "⋯"))
        elif not old and not new:
            continue  # the file's header
        elif mark == "-":
            shown.append(DiffLine("-", text, old))
            old += 1
        elif mark == "+":
            shown.append(DiffLine("+", text, new))
            new += 1
        elif mark == "\\":
            shown.append(DiffLine("@", line))
        else:
            shown.append(DiffLine(" ", text, new))
            old, new = old + 1, new + 1
    return shown


def plural(number: int, noun: str) -> str:
    """1 line · 2,000 lines"""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def hung(text: str, width: int) -> str:
    """Lines of two columns, name and words, whose words stay in theirs where a line is longer than
    `width`; below the name where there is no room beside it. Other lines are as they were."""
    return "\n".join(_hung(line, width) for line in text.split("\n"))


def arguments_text(name: str, arguments: Mapping[str, object]) -> str:
    """Every argument in full, shown to the last character: what an approval is about."""
    if name == "bash" and set(arguments) == {"command"}:
        return visible(str(arguments["command"]), exact=True)
    parts = []
    for key, value in arguments.items():
        name, shown = visible(key, exact=True), visible(_plain(value), exact=True)
        parts.append(f"{name}:\n{shown}" if "\n" in shown else f"{name}: {shown}")
    return "\n".join(parts)


def hides_something(arguments: Mapping[str, object]) -> bool:
    """Whether any text of the arguments holds what a reader would not see."""
    return any(isinstance(value, str) and has_hidden(value) for value in arguments.values())


def count(number: int) -> str:
    """412 · 8.2k · 256k · 1.2M"""
    if number < 1000:
        return str(number)
    for limit, unit, name in ((1_000_000, 1000, "k"), (1_000_000_000, 1_000_000, "M")):
        if number < limit:
            scaled = number / unit
            return f"{scaled:.1f}{name}" if scaled < 99.95 else f"{scaled:.0f}{name}"
    return f"{number / 1e9:.1f}G"


def seconds(duration: float) -> str:
    """0.4s · 12s · 3m 05s"""
    if duration < 10:
        return f"{duration:.1f}s"
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def bar(done: int, total: int, cells: int = 10) -> str:
    """▰▰▰▱▱▱▱▱▱▱"""
    full = min(cells, done * cells // total) if total else cells
    return "▰" * full + "▱" * (cells - full)


def _lines(text: str, exact: bool = False) -> list[str]:
    """Lines of untrusted text, displayable. Only a newline ends one, so numbers stay true."""
    lines = visible(text, exact=exact).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _hung(line: str, width: int) -> str:
    columns = _COLUMNS.match(line)
    if columns is None or len(line) <= width:
        return line
    start, head = columns.end(), line[: columns.end()]
    if start > width // 2:
        start, head = _NARROW_INDENT, f"{line[: columns.end()].rstrip()}\n{' ' * _NARROW_INDENT}"
    rest = wrap(line[columns.end() :], max(width - start, 1), break_on_hyphens=False)
    return head + ("\n" + " " * start).join(rest)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
