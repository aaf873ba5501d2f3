"""Repositories with several files, and a batch over them with a scripted model."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent.cli import main


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def tree(repo: Path) -> Path:
    """`repo` with src/a.py … src/d.py, each with one line `n = 1`."""
    for name in "abcd":
        (repo / f"src/{name}.py").write_text(f"# {name}\nn = 1\n")
    git(repo, "config", "user.name", "a")
    git(repo, "config", "user.email", "a@b")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "files")
    return repo


@pytest.fixture
def work(play: SimpleNamespace) -> Callable[..., list[dict[str, Any]]]:
    """The two steps of an item that does its work: an edit, an answer."""

    def steps(path: str, new: str = "n = 2", old: str = "n = 1") -> list[dict[str, Any]]:
        return [
            {**play.call("edit", path=path, old=old, new=new), "expect": path},
            {**play.say("Done."), "expect": f"Edited {path}"},
        ]

    return steps


@pytest.fixture
def batch(
    tree: Path, script: Callable[..., str], capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., SimpleNamespace]:
    """`batch(steps, *arguments)`: `ds4-agent batch -C tree --model script …` in this process."""

    def run(steps: list[dict[str, Any]], *arguments: str) -> SimpleNamespace:
        capfdbinary.readouterr()
        code = main(["batch", "-C", str(tree), "--model", script(*steps), *arguments])
        out, err = (stream.decode() for stream in capfdbinary.readouterr())
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        result = lines[-1] if lines else {}
        return SimpleNamespace(code=code, out=out, err=err, lines=lines, result=result)

    return run


@pytest.fixture
def run_git() -> Callable[..., str]:
    return git
