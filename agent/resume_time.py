"""How long it takes until a session that goes on is as far as it was. An estimate, by what is known
without a model: whether the store has a place of its length, how many bytes that is, how fast its
model was when it last computed. In: summaries, the store's directory. Out: seconds, or None where
nothing tells. Opens no log and reads no state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.sessions.summary import Summary

__all__ = ["resume_times", "shown_time"]

READ_SPEED = 5e8  # bytes a second to read, check and unpack what is stored, on one core
LEAST = 0.01  # seconds: what there is to do beside reading
MOST_LOOKED_AT = 100  # places of which the files are looked at; the others are as large a token


def resume_times(summaries: Sequence[Summary], store: Path) -> dict[str, float | None]:
    """Seconds by session id."""
    places, rates = _places(store), _rates(summaries)
    looked = tokens = size = 0
    times: dict[str, float | None] = {}
    for summary in summaries:
        # The last token of an answer is not computed before something follows it.
        place = places.get(summary.tokens - 1) or places.get(summary.tokens)
        rate = summary.prefill_rate or rates.get(summary.fingerprint, 0.0)
        if not summary.tokens:
            times[summary.id] = None
        elif place is not None:
            if looked < MOST_LOOKED_AT:
                found = _size(store, place)
                looked, tokens, size = looked + 1, tokens + summary.tokens, size + found
            else:
                found = size * summary.tokens // tokens
            times[summary.id] = max(LEAST, found / READ_SPEED)
        else:
            times[summary.id] = max(LEAST, summary.tokens / rate) if rate else None
    return times


def shown_time(seconds: float | None) -> str:
    """`~0.1 s`, `~12 s`, `~3 min`; "-" for one that is not known."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"~{max(seconds, 0.1):.1f} s"
    return f"~{seconds:.0f} s" if seconds < 99.5 else f"~{seconds / 60:.0f} min"


def _places(store: Path) -> dict[int, str]:
    """A stored place for each number of tokens that has one, by its label."""
    found = {}
    with suppress(OSError), os.scandir(store) as roots:
        for root in roots:
            with suppress(OSError):
                for name in os.listdir(f"{store}/{root.name}/places"):
                    if name[:9].isdecimal():
                        found[int(name[:9])] = f"{root.name}/places/{name}"
    return found


def _rates(summaries: Sequence[Summary]) -> Mapping[str, float]:
    """The prefill speed of each model that was measured last; `summaries` are newest first."""
    return {s.fingerprint: s.prefill_rate for s in reversed(summaries) if s.prefill_rate}


def _size(store: Path, label: str) -> int:
    """The bytes of a place and of its rows, as far as they are there."""
    from ds4_agent.engine.kvstore.layout import needed_rows, read_header_line

    size = 0
    for file in (label, *needed_rows(label, read_header_line(store, label))):
        with suppress(OSError):
            size += os.stat(store / file, follow_symlinks=False).st_size
    return size
