"""How a list shows a session: a row of text, or JSON.

In: summaries, with whatever their logs say. Out: text that may be shown on a terminal.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ds4_agent.agent.display import one_line
from ds4_agent.agent.resume_time import shown_time
from ds4_agent.agent.sizes import shown_size
from ds4_agent.sessions.summary import Summary, number_of

__all__ = [
    "HEAD",
    "as_json",
    "iso_time",
    "local_time",
    "row",
    "size_facts",
]

HEAD = (
    f"{'ID':<22}  {'LAST USED':<16}  {'TURNS':>5}  {'TOKENS':>9}  {'SIZE':>8}  {'RESUME':>7}  TITLE"
)


def local_time(seconds: float) -> str:
    """`2026-11-22 07:03`; "-" for a time that is not known."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"
    except (OSError, OverflowError, ValueError):
        return "-"


def row(summary: Summary, resume: float | None, with_directory: bool) -> str:
    """A session on one line, below `HEAD`; `resume`: seconds until it can go on."""
    title = one_line(summary.title, 60) or "-"
    columns = [
        f"{one_line(summary.id):<22}",
        f"{local_time(summary.last_used):<16}",
        f"{summary.turns:>5,}",
        f"{summary.tokens:>9,}",
        f"{shown_size(summary.bytes):>8}",
        f"{shown_time(resume):>7}",
        f"{title}  {_model(summary.model)}" if summary.model else title,
    ]
    if with_directory and summary.directory:
        columns.append(f"in {one_line(summary.directory)}")
    if summary.note:
        columns.append(f"({one_line(summary.note)})")
    return "  ".join(columns)


@lru_cache(16)  # of many sessions there are few
def _model(name: str) -> str:
    return f"[{one_line(name, 30)}]"


def size_facts(summary: Summary) -> str:
    """`2 turns, 1,204 tokens, 4.1 KB`."""
    turns, tokens = number_of(summary.turns, "turn"), number_of(summary.tokens, "token")
    return f"{turns}, {tokens}, {shown_size(summary.bytes)}"


def as_json(summary: Summary) -> dict[str, Any]:
    """A summary for a program: times in ISO 8601, null where unknown."""
    times = {"started": iso_time(summary.started), "last_used": iso_time(summary.last_used)}
    return {**asdict(summary), **times}


def iso_time(seconds: float) -> str | None:
    """A time as programs read it; None for one that is not known."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None
    except (OSError, OverflowError, ValueError):
        return None
