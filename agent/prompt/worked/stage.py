"""A fresh repository to play a session in, on any machine the same.

In: a session. Out: a directory with its commits, and the product's own tools at work in it. The
time of commits, who makes them, git's configuration, `python3` and `ds4-agent` are fixed; nothing
of the user's is read or written.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ds4_agent
from ds4_agent.agent.places import find_places
from ds4_agent.agent.prompt.worked.source import Commit, Session
from ds4_agent.agent.trust import trust
from ds4_agent.tools.process import Processes
from ds4_agent.tools.registry import builtin_tools, execute
from ds4_agent.tools.types import ToolContext, ToolResult
from ds4_agent.tools.workspace import Workspace

WHO = ("Sam Okafor", "sam@example.org")
DATE = "2025-03-{day:02}T09:00:00+0000"


class StageError(Exception):
    """The repository cannot be set up, or what the user does meanwhile failed."""


@dataclass(frozen=True)
class Stage:
    """The place and its tools. `environment` is what its commands run in."""

    root: Path
    context: ToolContext

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Run one call as the agent would."""
        return execute(builtin_tools(), name, arguments, self.context)

    def shell(self, command: str) -> None:
        """What is no part of the session: setting up, and what the user does meanwhile. It goes
        by another workspace, so that the agent's does not know of it. Raises StageError."""
        aside = ToolContext(Workspace(self.root), self.context.processes)
        done = execute(builtin_tools(), "bash", {"command": f"set -e\n{command}"}, aside)
        if done.is_error or not done.content.startswith("exit code 0"):
            raise StageError(f"{command}\n{done.content}")


@contextmanager
def stage(session: Session) -> Iterator[Stage]:
    """The repository of a session, trusted by its user, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ds4-worked-") as temporary:
        base = Path(temporary).resolve()
        root = base / Path(session.root).name
        home = base / "home"
        for directory in (root, home, base / "bin"):
            directory.mkdir()
        _write_programs(base / "bin")
        environment = {
            "PATH": f"{base / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": os.fspath(home),
            "DS4_HOME": os.fspath(home / "ds4"),
            "LC_ALL": "C",
            "TMPDIR": os.fspath(base),
            **session.environment,
        }
        with _own_environment(environment), Processes(environment) as processes:
            made = Stage(root, ToolContext(Workspace(root), processes))
            made.shell(_new_repository())
            for day, commit in enumerate(session.commits, 3):
                _make_commit(made, commit, day)
            trust(root, find_places(environment).trusted_file)
            yield made


def date_of_last_commit(stage: Stage) -> None:
    """Give the commit just made a fixed date, and with it a name that is the same everywhere."""
    stage.shell(f"{_dates(28)} git commit --quiet --amend --no-edit --reset-author")


def _new_repository() -> str:
    name, address = map(shlex.quote, WHO)
    return (
        f"git init --quiet\ngit symbolic-ref HEAD refs/heads/main\n"
        f"git config user.name {name}\ngit config user.email {address}"
    )


def _make_commit(stage: Stage, commit: Commit, day: int) -> None:
    for name, text in commit.files.items():
        path = stage.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    message = shlex.quote(commit.message)
    stage.shell(f"git add --all\n{_dates(day)} git commit --quiet --message={message}")


def _dates(day: int) -> str:
    date = shlex.quote(DATE.format(day=day))
    return f"GIT_AUTHOR_DATE={date} GIT_COMMITTER_DATE={date}"


def _write_programs(directory: Path) -> None:
    """`python3` and `ds4-agent` are those that play the session, whatever the user's PATH has.

    Without bytecode files: two edits within a second could leave an old one in use.
    """
    package = shlex.quote(os.fspath(Path(ds4_agent.__file__).parent.parent))
    python = f"#!/bin/sh\nPYTHONPATH={package} exec {shlex.quote(sys.executable)} -B"
    for name, words in (("python3", ""), ("ds4-agent", " -m ds4_agent")):
        path = directory / name
        path.write_text(f'{python}{words} "$@"\n', encoding="utf-8")
        path.chmod(0o755)


@contextmanager
def _own_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """git reads the environment of this very process (`tools.git.PASSED`)."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
