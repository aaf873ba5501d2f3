"""Plays a task by its policy with the product's own tools in a real directory.

In: a Task and a scratch directory. Out: an Episode: what was said, called and returned. The
directory is filled anew for each task; results of pooled tasks are kept and used again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ds4_agent.tools.process import Processes
from ds4_agent.tools.registry import builtin_tools, execute
from ds4_agent.tools.types import Tool, ToolContext
from ds4_agent.tools.workspace import Workspace
from training.tasks.task import Call, Git, Task

GIT_TIME = "2026-01-05T12:00:00+0000"  # a fixed time, so that hashes repeat

QUIET = {
    # What this machine's npm adds to its output is nothing to learn.
    "NPM_CONFIG_USERCONFIG": os.devnull,
    "NPM_CONFIG_UPDATE_NOTIFIER": "false",
    # Plugins of this machine's pytest change nothing but the time a run takes.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


@dataclass(frozen=True)
class Turn:
    """One turn: the user's text, the model's answer, the model's call, or the call's result."""

    kind: Literal["user", "answer", "call", "result"]
    text: str = ""
    call: Call | None = None


@dataclass(frozen=True)
class Episode:
    """A finished task as a conversation. `tests` as in Task."""

    family: str
    turns: tuple[Turn, ...]
    tests: str | None = None


@dataclass
class Player:
    """Plays tasks below `scratch`, which must exist; close() removes what it made there.

    `kept` holds the results of pooled tasks, by files and call: a test run takes a third of a
    second, and its text can answer many requests.
    """

    scratch: Path
    tools: tuple[Tool, ...] = field(default_factory=builtin_tools)
    kept: dict[str, str] = field(default_factory=dict)

    def play(self, task: Task) -> Episode:
        """The episode of `task`. Each result is what the tool really returned."""
        if task.is_pooled:
            return Episode(task.family, self._turns(task, self._kept_result), task.tests)
        session = context(self.prepared(task))

        def result(_task: Task, call: Call) -> str:
            return execute(self.tools, call.name, call.arguments, session).content

        try:
            return Episode(task.family, self._turns(task, result), task.tests)
        finally:
            session.processes.close()

    def _turns(self, task: Task, run: Callable[[Task, Call], str]) -> tuple[Turn, ...]:
        turns: list[Turn] = []
        for ask in task.asks:
            turns.append(Turn("user", ask.text))
            policy = ask.policy()
            result: str | None = None
            while True:
                try:
                    call = policy.send(result) if result is not None else next(policy)
                except StopIteration as done:
                    turns.append(Turn("answer", done.value))
                    break
                turns.append(Turn("call", call=call))
                result = run(task, call)
                turns.append(Turn("result", result))
        return tuple(turns)

    def _kept_result(self, task: Task, call: Call) -> str:
        parts = repr((sorted(task.files.items()), task.git, call.name, dict(call.arguments)))
        key = hashlib.sha256(parts.encode()).hexdigest()
        if key not in self.kept:
            session = context(self.prepared(task))
            try:
                done = execute(self.tools, call.name, call.arguments, session)
            finally:
                session.processes.close()
            self.kept[key] = done.content
        return self.kept[key]

    def prepared(self, task: Task) -> Path:
        """A fresh directory with the task's files, and its git history if it has one."""
        root = self.scratch / "work"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        fill(root, task.files)
        if task.git is not None:
            make_repository(root, task.git, self._empty_repository())
        return root

    def close(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _empty_repository(self) -> Path:
        """A `.git` to copy, which is ten times faster than `git init`."""
        root = self.scratch / "empty"
        if not root.exists():
            root.mkdir()
            run_git(root, "init", "-q", "-b", "main", "--template=")
            run_git(root, "config", "user.name", "Ada")
            run_git(root, "config", "user.email", "ada@example.com")
        return root / ".git"


def context(root: Path) -> ToolContext:
    """What tools get to work in `root`."""
    processes = Processes({**os.environ, **QUIET})
    return ToolContext(Workspace(root), processes, threading.Event(), lambda _text: None)


def fill(root: Path, files: Mapping[str, str | None]) -> None:
    """Write (None: remove) files below `root`."""
    for name, content in files.items():
        path = root / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())


def make_repository(root: Path, git: Git, empty: Path) -> None:
    """Turn `root` into a repository with the commits and changes of `git`."""
    shutil.copytree(empty, root / ".git")
    (root / ".git" / "HEAD").write_text(f"ref: refs/heads/{git.branch}\n")
    for message, files in git.commits:
        fill(root, files)
        run_git(root, "add", "-A")
        run_git(root, "commit", "-q", "-m", message)
    fill(root, git.changes)
    if git.staged:
        run_git(root, "add", "-A", "--", *git.staged)


def run_git(root: Path, *arguments: str) -> None:
    """git itself, without the user's configuration and at a fixed time."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": GIT_TIME,
        "GIT_COMMITTER_DATE": GIT_TIME,
    }
    command = ["git", "-C", os.fspath(root), *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment)
