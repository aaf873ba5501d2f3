"""Reading the append-only logs: one JSON object a line. In: a file another process may have been
killed over, or somebody damaged. Out: every line that is whole, and how many were not. A damaged
line costs that line; nothing is ever repaired in place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Lines", "read_lines"]


@dataclass(frozen=True)
class Lines:
    """The records of a log, oldest first; `damaged` counts the lines that could not be read."""

    records: tuple[dict[str, Any], ...]
    damaged: int = 0


def read_lines(path: Path) -> Lines:
    """Every whole line of `path`; a file that is not there is empty. Raises OSError otherwise."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Lines(())
    records: list[dict[str, Any]] = []
    damaged = 0
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            damaged += 1
    return Lines(tuple(records), damaged)
