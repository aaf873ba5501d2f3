"""A session as Markdown that a person reads: prompts and answers, calls folded up beside them.

In: its summary and entries. Out: the document. Whatever was said stays where it was said: text is
quoted, so that no fence or heading in it reaches beyond itself; tags and images in it are shown as
text; results stand in fences longer than any in them; nothing is left out.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.rules import subject
from ds4_agent.agent.session_rows import local_time

if TYPE_CHECKING:
    from ds4_agent.agent.session_entries import Entry
    from ds4_agent.sessions.summary import Summary

__all__ = ["markdown"]

_FENCE = re.compile(r"(`{3,}|~{3,})(.*)")
# What would act or load something where the document is looked at: tags and images.
_ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|!(?=\[)")
_INERT = {"<": "&lt;", "!": "&#33;"}
# A backslash before a sign, a code span (the same number of backticks on both sides), other
# backticks, what is active: whichever comes first.
_INLINE = re.compile(
    r"\\[!-/:-@\[-`{-~]|(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)|(?P<loose>`+)|"
    rf"(?P<active>{_ACTIVE.pattern})"
)


def markdown(summary: Summary, said: Sequence[Entry], damaged: int) -> str:
    """The document, with a line's end at its end. Nothing in it acts on a terminal."""
    parts = [f"# {_plain(summary.title or summary.id)}", _facts(summary, damaged)]
    for entry in said:
        if entry.kind == "prompt":
            when = f" · {local_time(entry.time)}" if entry.time else ""
            parts.append(f"## Turn {entry.turn}{when}")
        parts.append(_part(entry))
    return "\n\n".join(parts) + "\n"


def _facts(summary: Summary, damaged: int) -> str:
    facts = {
        "Session": summary.id,
        "Forked from": summary.forked_from,
        "Directory": summary.directory,
        "Model": summary.model,
        "Started": local_time(summary.started),
        "Last used": local_time(summary.last_used),
        "Turns": f"{summary.turns:,}",
        "Tokens": f"{summary.tokens:,}",
        "Damaged lines": f"{damaged:,}" if damaged else "",
    }
    return "\n".join(f"- {name}: {_plain(value)}" for name, value in facts.items() if value)


def _part(entry: Entry) -> str:
    text = entry.text or ""
    if entry.kind == "prompt":
        return f"**You**\n\n{_quoted(text)}"
    if entry.kind == "answer":
        return f"**ds4-agent**\n\n{_quoted(text)}"
    if entry.kind == "thinking":
        return _folded("thinking", _fenced(text))
    if entry.kind == "call":
        said = one_line(f"{entry.name} {subject(entry.name, entry.arguments)}", 120)
        how = "no result" if entry.text is None else "error" if entry.is_error else "done"
        body = [_fenced(_arguments(entry))] if entry.arguments else []
        body += [_fenced(text)] if entry.text is not None else []
        return _folded(f"{said or 'a call'} ({how})", "\n\n".join(body))
    first, _, rest = text.partition("\n")
    note = f"*{_plain(first)}*"
    return f"{note}\n\n{_quoted(rest.strip())}" if rest.strip() else note


def _arguments(entry: Entry) -> str:
    """A line an argument; of several lines, below its name."""
    lines = []
    for name, value in entry.arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"{name}:\n{text}" if "\n" in text else f"{name}: {text}")
    return "\n".join(lines)


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>\n\n{body}\n\n</details>"


def _fenced(text: str) -> str:
    text = visible(text).rstrip("\n")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _plain(text: str) -> str:
    """Text on one line that is nothing but text."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", one_line(text))


def _quoted(text: str) -> str:
    """Markdown in a quotation, which ends whatever is open in it, and inert."""
    return "\n".join(f"> {line}" if line else ">" for line in _inert_lines(visible(text)))


def _inert_lines(text: str) -> Iterator[str]:
    """The lines of a text, tags and images outside code made text.

    Code is told from text only where that is beyond doubt, else it is escaped like text: fences
    that begin in the first column, as long as no other was seen, and code spans of one line, as
    long as no line of the paragraph holds backticks without a partner.
    """
    fence, is_certain, is_paired = "", True, True
    for line in text.split("\n"):
        if fence:
            fence = "" if _closes(line, fence) else fence
            yield line
            continue
        opening = _FENCE.match(line)
        if is_certain and opening is not None and not (line[0] == "`" and "`" in opening[2]):
            fence = opening[1]
            yield line
            continue
        is_certain = is_certain and re.search("`{3}|~{3}", line) is None
        is_paired = not line.strip() or (is_paired and _has_pairs(line))
        if is_certain and is_paired:
            yield _INLINE.sub(lambda m: _INERT[m[0]] if m["active"] else m[0], line)
        else:
            yield _ACTIVE.sub(lambda match: _INERT[match[0]], line)


def _closes(line: str, fence: str) -> bool:
    inner = line.lstrip(" ")
    run = inner.rstrip()
    return len(line) - len(inner) < 4 and run.startswith(fence) and set(run) == {fence[0]}


def _has_pairs(line: str) -> bool:
    """Whether every run of backticks in the line has its partner there."""
    return not any(match["loose"] for match in _INLINE.finditer(line))
