"""What a session is asked between its turns: lists to choose from, and the work they lead to.

In: a command, the agent, and which row was picked. Out: the next list, or work for the agent's
thread, or one line why there is none. Knows no screen.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.places import find_places
from ds4_agent.agent.resume_time import resume_times
from ds4_agent.tui.branches import as_tree
from ds4_agent.tui.commands import FILES, prompt_rows, session_rows

if TYPE_CHECKING:
    from ds4_agent.agent.choose import Choice
    from ds4_agent.agent.loop import Agent
    from ds4_agent.tui.conversation import Build, Conversation

__all__ = ["BETWEEN_TURNS", "Choosing", "Rows", "Work"]

BETWEEN_TURNS = (
    "undo", "compact", "uncompact", "sessions", "resume", "rewind", "fork", "model", "trust",
    "btw", "try",
)  # fmt: skip
RESUME, FORK = "Go on with which session?", "Go on in a copy of which session?"
TURN, WHAT = "Back to before which prompt?", "What goes back?"


@dataclass(frozen=True)
class Rows:
    """One is to be picked, for what `about` names; displayable text. `first` is picked to begin
    with."""

    about: str
    title: str
    rows: tuple[str, ...]
    first: int = 0


@dataclass(frozen=True)
class Work:
    """What is to be begun. `activity` is what the status line says until it ends; "" where it has
    no end of its own."""

    activity: str
    begin: Callable[[], None]


class Choosing:
    """The lists of one run, one at a time."""

    def __init__(self, build: "Build", conversation: "Conversation") -> None:
        self._build = build
        self._conversation = conversation
        self._ids: list[str] = []
        self._here = ""
        self._turns = 0
        self._turn = 0
        self._forks = False

    def at_start(self) -> Rows | Work:
        """What comes before anything else: the model is loaded, or a session is chosen first."""
        self._forks = self._build.asks_for == "fork"
        rows = None
        if self._build.asks_for:
            rows = self._sessions("start", FORK if self._forks else RESUME)
        return rows or Work("", self._conversation.start)

    def command(self, name: str, agent: "Agent") -> Rows | Work | str:
        """What one of the commands `BETWEEN_TURNS` leads to."""
        talk = self._conversation
        match name:
            case "undo":
                return Work("undoing", talk.undo)
            case "compact":
                return Work("summarising", talk.compact)
            case "fork":
                copy = self._build.choice(agent.identity.session_id, forks=True)
                return Work("copying", partial(talk.open, copy))
            case "rewind":
                self._turns = len(agent.turns)
                if not self._turns:
                    return "There is no earlier prompt to go back to."
                return Rows("turn", TURN, tuple(prompt_rows(agent.turns)))
        self._forks = False
        try:
            others = self._sessions("open", RESUME, here=agent.identity.session_id)
        except UsageError as error:
            return str(error)
        return others or "There is no other session of this directory."

    def picked(self, about: str, index: int | None) -> Rows | Work | None:
        """What follows from the row that was picked; None from none and from the session that goes
        on anyway, but for the first choice, without which a new session begins."""
        talk = self._conversation
        if about == "start":
            return Work("", partial(talk.start, None if index is None else self._choice(index)))
        if index is None or (about == "open" and self._ids[index] == self._here):
            return None
        if about == "open":
            return Work("opening", partial(talk.open, self._choice(index)))
        if about == "turn":
            self._turn = self._turns - index
            return Rows("files", WHAT, FILES)
        return Work("going back", partial(talk.rewind, self._turn, with_files=index == 1))

    def _sessions(self, about: str, title: str, here: str = "") -> Rows | None:
        """The tree of all of them, with the one that goes on `here`: its branches hang on it. The
        newest of the others is picked to begin with; None where there is no other."""
        sessions = [s for s in self._build.sessions() if s.id != here or s.turns]
        newest = next((s.id for s in sessions if s.id != here), None)
        if newest is None:
            return None
        tree = as_tree(sessions)
        self._here = here
        self._ids = [summary.id for _, summary in tree]
        times = resume_times(sessions, find_places(os.environ).kv)
        rows = session_rows(tree, times, time.time(), here)
        return Rows(about, title, tuple(rows), self._ids.index(newest))

    def _choice(self, index: int) -> "Choice":
        return self._build.choice(self._ids[index], forks=self._forks)
