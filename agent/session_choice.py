"""Which sessions a command line means: those of this directory, or all.

In: parsed arguments. Out: words and summaries; what is left out is said on stderr.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ds4_agent.agent.cli import existing_directory
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.places import find_places
from ds4_agent.agent.printing import warn
from ds4_agent.sessions.catalogue import in_directory, list_sessions
from ds4_agent.sessions.summary import Summary, number_of

__all__ = ["chosen_sessions", "sessions_root", "take", "tell_others"]


def take(chosen: argparse.Namespace, least: int, most: int, usage: str) -> list[str]:
    """The words of an action that takes `least` to `most` of them. Raises UsageError."""
    words: list[str] = chosen.words
    if not least <= len(words) <= most:
        raise UsageError(f"it is `ds4-agent sessions {usage}`; see sessions --help")
    if (chosen.format or chosen.output is not None) and chosen.action != "export":
        raise UsageError("--format and -o go with sessions export")
    return words


def sessions_root() -> Path:
    """The directory that holds the sessions."""
    return find_places(os.environ).sessions


def chosen_sessions(chosen: argparse.Namespace) -> tuple[list[Summary], list[Summary]]:
    """The sessions asked for, newest first, and the others."""
    every = list_sessions(sessions_root())
    if chosen.all:
        return every, []
    here = in_directory(every, existing_directory(chosen.cd or Path()))
    ids = {summary.id for summary in here}
    return here, [summary for summary in every if summary.id not in ids]


def tell_others(
    found: Sequence[Summary], others: Sequence[Summary], chosen: argparse.Namespace
) -> None:
    """Say what a list leaves out, where that may be missed."""
    unread = sum(not summary.directory for summary in others)
    if not found and chosen.action == "list":
        said = f"; --all lists {number_of(len(others), 'session')} of others" if others else ""
        warn(f"no session {'yet' if chosen.all else 'of this directory'}{said}")
    elif unread:
        warn(f"{number_of(unread, 'session')} of unknown directory; --all lists them and says why")
