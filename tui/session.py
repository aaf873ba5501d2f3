"""What a screen is given to begin with: facts about this run, known before the model is loaded,
and the way to build its agent. In: `RunOptions`. Nothing heavy is imported to know the facts.
"""

import gc
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent import __version__
from ds4_agent.agent.approval import Mode
from ds4_agent.agent.build import Asks, RunOptions, build_agent, opened_engine
from ds4_agent.agent.choose import Choice, sessions_here
from ds4_agent.agent.permissions import default_mode
from ds4_agent.agent.places import Places
from ds4_agent.agent.prompt.facts import git_branch
from ds4_agent.tui.conversation import Conversation

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent
    from ds4_agent.engine.api import Context, Engine
    from ds4_agent.sessions.summary import Summary

__all__ = ["MODES", "About", "about", "builder", "mode_after"]

MODES: tuple[Mode, ...] = (
    "ask",
    "accept-edits",
    "plan",
    "auto",
)  # in the order Shift+Tab walks them


@dataclass(frozen=True)
class About:
    """What is shown of a run from the first frame on."""

    version: str
    directory: str
    branch: str
    mode: Mode
    allows_all: bool = False  # --yolo: the mode changes nothing
    root: Path | None = None  # the working directory itself
    places: Places | None = None
    keeps: bool = True  # the session and what is typed in it, on disk
    model: str = ""  # as it was named, "" for the default

    def mode_shown(self, mode: Mode) -> str:
        """What is said about the permissions while `mode` is set."""
        return "yolo" if self.allows_all else mode


def mode_after(mode: Mode) -> Mode:
    """The next permission mode; after one that is not walked, the first."""
    return MODES[(MODES.index(mode) + 1) % len(MODES)] if mode in MODES else MODES[0]


def about(options: RunOptions) -> About:
    """The facts of a run, the directory as its owner would write it."""
    path = os.fspath(options.directory)
    home = os.fspath(Path.home())
    if path == home or path.startswith(home + os.sep):
        path = "~" + path[len(home) :]
    branch = git_branch(options.directory) or ""
    return About(
        __version__,
        path,
        branch,
        default_mode(options),
        options.yolo,
        root=options.directory,
        places=options.places,
        keeps=options.keeps_log,
        model=options.settings.model or "",
    )


class Builder:
    """Builds the agents of one run, one after the other, on one model: it is loaded once."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._engine: Engine | None = None
        self._agent: Agent | None = None
        self._again: Choice | None = None  # whose agent was closed to be built anew

    def __call__(self, conversation: Conversation, choice: Choice | None = None) -> "Agent":
        """An agent with the conversation as the one who is asked, of the session that was chosen
        now or on the command line. Should it not come to be, the one before it goes on."""

        warm = None
        if self._agent is not None:
            self._agent.save()  # a copy of its session begins as it is now
            warm = self._agent.context
        options = self._options if choice is None else replace(self._options, resumes=choice)
        return self._built(conversation, options, warm)

    def again(self, conversation: Conversation, model: str | None = None) -> "Agent":
        """The agent of the same session anew: with what may be loaded now, or on another model. The
        one before it is closed, whatever happens; should this raise, call it again without
        `model`."""
        warm = None
        if self._agent is not None:
            agent, self._agent = self._agent, None
            agent.save()
            self._again = self.choice(agent.identity.session_id) if agent.turns else None
            warm = agent.context if model is None else None
            agent.close()
        options = replace(self._options, resumes=self._again)
        if model is not None:
            self.close()
            options = replace(options, settings=replace(options.settings, model=model))
        try:
            made = self._built(conversation, options, warm)
        except BaseException:
            if model is not None:
                self.close()
            raise
        self._options = replace(options, resumes=None)
        return made

    def _built(
        self, conversation: Conversation, options: RunOptions, warm: "Context | None"
    ) -> "Agent":
        def engine() -> "Engine":
            if self._engine is None:
                self._engine = opened_engine(options, conversation.loading)
            return self._engine

        gc.disable()  # the many records of a long session would be looked through again and again
        try:
            self._agent = build_agent(options, approver=conversation, engine=engine, warm=warm)
        finally:
            gc.enable()
        return self._agent

    @property
    def asks_for(self) -> Asks:
        """What the user is to choose a session for before anything else, "" for nothing."""
        return self._options.asks_for

    def sessions(self) -> "list[Summary]":
        """The sessions of this directory, newest first. Raises UsageError."""
        return sessions_here(self._options.places.sessions, self._options.directory)

    def choice(self, session_id: str, *, forks: bool = False) -> Choice:
        """The choice of a session, or of a copy of it."""
        return Choice(self._options.places.sessions / session_id, forks)

    def close(self) -> None:
        """Free the model."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.close()


def builder(options: RunOptions) -> Builder:
    """How the conversation builds its agents."""
    return Builder(options)
