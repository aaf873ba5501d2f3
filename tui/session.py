"""What a screen is given to begin with: facts about this run, known before the model is loaded,
and the way to build its agent. In: `RunOptions`. Nothing heavy is imported to know the facts.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent import __version__
from ds4_agent.agent.approval import Mode
from ds4_agent.agent.build import RunOptions, build_agent, default_mode
from ds4_agent.agent.prompt.facts import git_branch
from ds4_agent.tui.conversation import Build, Conversation

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent

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
    return About(__version__, path, branch, default_mode(options), options.yolo)


def builder(options: RunOptions) -> Build:
    """How the conversation builds its agent, with itself as the one who is asked."""

    def build(conversation: Conversation) -> "Agent":
        return build_agent(options, approver=conversation, on_load=conversation.loading)

    return build
