"""What the lists in the slot are for: a session to go on with, a turn to go back to, the files.

In: the sessions there are, the agent's turns, and which row was picked. Out: the next list, or what
is to be done. Knows no screen.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds4_agent.agent.choose import Choice
from ds4_agent.agent.errors import UsageError
from ds4_agent.tui.commands import FILES, prompt_rows, session_rows
from ds4_agent.tui.picker import Picker

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent
    from ds4_agent.tui.conversation import Build

__all__ = ["Back", "Choosing", "Start"]

RESUME, FORK = "Go on with which session?", "Go on in a copy of which session?"
TURN, WHAT = "Back to before which prompt?", "What goes back?"


@dataclass(frozen=True)
class Start:
    """The first agent is to be built; of a new session, where there is no choice."""

    choice: Choice | None


@dataclass(frozen=True)
class Back:
    turn: int
    with_files: bool


class Choosing:
    """The lists of one run, one at a time."""

    def __init__(self, build: "Build") -> None:
        self._build = build
        self._ids: list[str] = []
        self._turns = 0
        self._turn = 0
        self._forks = False

    def at_start(self) -> Picker | None:
        """What is asked before the model is loaded; None for nothing."""
        if not self._build.asks_for:
            return None
        self._forks = self._build.asks_for == "fork"
        return self._sessions("start", FORK if self._forks else RESUME)

    def session(self, agent: "Agent") -> Picker | str:
        """The list of the sessions here, without this one; or why there is none."""
        self._forks = False
        try:
            return self._sessions("open", RESUME, without=agent.identity.session_id) or (
                "There is no other session of this directory."
            )
        except UsageError as error:
            return str(error)

    def turn(self, agent: "Agent") -> Picker | str:
        """The list of turns; or why there is none."""
        self._turns = len(agent.turns)
        if not self._turns:
            return "There is no earlier prompt to go back to."
        return Picker("turn", TURN, prompt_rows(agent.turns))

    def copy_of(self, agent: "Agent") -> Choice:
        """The choice of a copy of the session under way."""
        return self._build.choice(agent.identity.session_id, forks=True)

    def picked(self, about: str, index: int | None) -> Picker | Start | Choice | Back | None:
        """What follows from the row that was picked."""
        if about == "start":
            return Start(None if index is None else self._choice(index))
        if index is None:
            return None
        if about == "open":
            return self._choice(index)
        if about == "turn":
            self._turn = self._turns - index
            return Picker("files", WHAT, FILES)
        return Back(self._turn, index == 1)

    def _sessions(self, about: str, title: str, without: str = "") -> Picker | None:
        sessions = [s for s in self._build.sessions() if s.id != without]
        self._ids = [summary.id for summary in sessions]
        rows = session_rows(sessions, time.time())
        return Picker(about, title, rows) if sessions else None

    def _choice(self, index: int) -> Choice:
        return self._build.choice(self._ids[index], forks=self._forks)
