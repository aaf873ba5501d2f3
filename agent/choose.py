"""Which session goes on: what `-c`, `-r` and `--fork` name.

In: words of the command line. Out: a `Choice`, which `build_agent` opens. Opens nothing itself; the
one line of an error says which sessions there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import UsageError

if TYPE_CHECKING:
    from ds4_agent.sessions.summary import Summary

__all__ = ["Choice", "choose", "in_place", "sessions_here"]

LISTED = 8  # sessions that an error names


@dataclass(frozen=True)
class Choice:
    """The session in `directory` goes on; `forks`: in a copy of it."""

    directory: Path
    forks: bool = False


def choose(
    root: Path,
    place: Path,
    *,
    continues: bool,
    resume: str | None,
    fork: str | None,
    can_ask: bool,
) -> Choice | None:
    """The session that is meant; None where the user is to be asked (`can_ask`).

    `resume` and `fork` are "" without a name. `place` is the working directory. Raises UsageError.
    """
    if continues and resume is not None:
        raise UsageError("-c is the latest session here and -r a certain one; give one of the two")
    if fork and (continues or resume):
        raise UsageError("--fork names a session itself; with -c or -r ID it takes no ID")
    name = resume or fork
    forks = fork is not None
    if name:
        return Choice(root / _named(root, place, name).id, forks)
    here = sessions_here(root, place)
    if not here:
        raise UsageError(f"there is no session in {place} to go on with")
    if continues:
        return Choice(root / here[0].id, forks)
    if can_ask:
        return None
    flag = "--fork" if resume is None else "-r"
    raise UsageError(f"{flag} needs the ID of a session here; there are {_listed(here)}")


def sessions_here(root: Path, place: Path) -> list[Summary]:
    """The sessions that last worked in `place`, newest first. Raises UsageError."""
    from ds4_agent.sessions.catalogue import list_sessions
    from ds4_agent.sessions.errors import SessionError

    try:
        return [summary for summary in list_sessions(root, place) if summary.turns]
    except SessionError as error:
        raise UsageError(str(error)) from error


def in_place(choice: Choice, place: Path) -> Path:
    """The directory a session is gone on with in: where it last worked. Raises UsageError."""
    from ds4_agent.sessions.catalogue import summary_of

    directory = summary_of(choice.directory).directory
    if not directory:
        return place
    if not os.path.isdir(directory):
        raise UsageError(
            f"session {choice.directory.name} worked in {directory}, which is gone; "
            "name another directory with -C"
        )
    return Path(directory)


def _named(root: Path, place: Path, name: str) -> Summary:
    """By its id, the only beginning of one, or the only title, here or else anywhere."""
    from ds4_agent.sessions.catalogue import find, list_sessions
    from ds4_agent.sessions.errors import SessionError

    try:
        return find(root, name)
    except SessionError as error:
        wanted = name.casefold()
        for sessions in (sessions_here(root, place), list_sessions(root)):
            titled = [summary for summary in sessions if summary.title.casefold() == wanted]
            titled = titled or [s for s in sessions if wanted in s.title.casefold()]
            if len(titled) == 1:
                return titled[0]
            if titled:
                raise UsageError(
                    f"more than one session is called {one_line(name, 60)}: {_listed(titled)}"
                ) from error
        raise UsageError(str(error)) from error


def _listed(sessions: Sequence[Summary]) -> str:
    shown = [f"{summary.id} ({one_line(summary.title, 40)})" for summary in sessions[:LISTED]]
    more = len(sessions) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
