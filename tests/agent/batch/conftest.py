"""Repositories with several files, and a batch over them with a scripted model."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent.cli import main

# Kills its own process right before the fsync of number DIE_AT. With CUT, what no fsync has made
# certain of the ledger is lost as well.
DYING = """
import os, signal, sys
real, synced, left = os.fsync, {}, [int(os.environ["DIE_AT"])]
def fsync(descriptor):
    left[0] -= 1
    if left[0] == 0:
        ledger = [int(n) for n in os.listdir("/proc/self/fd")
                  if os.path.realpath(f"/proc/self/fd/{n}").endswith("ledger.jsonl")]
        for number in ledger if os.environ.get("CUT") else ():
            os.ftruncate(number, synced.get(os.fstat(number).st_ino, 0))
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
    about = os.fstat(descriptor)
    synced[about.st_ino] = about.st_size
os.fsync = fsync
from ds4_agent.agent.cli import main
sys.exit(main(sys.argv[1:]))
"""


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


@pytest.fixture
def start(
    tree: Path, script: Callable[..., str], home: Path
) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """`start(steps, *arguments)`: the batch in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def run(
        steps: list[dict[str, Any]],
        *arguments: str,
        stdout: Any = None,
        stderr: Any = None,
        **environment: str,
    ) -> Any:
        program = ["-c", DYING] if "DIE_AT" in environment else ["-m", "ds4_agent.agent.cli"]
        command = [sys.executable, *program, "batch", "-C", str(tree), "--model", script(*steps)]
        process = subprocess.Popen(
            [*command, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=stderr or subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """`wait_for(what, process)`: until `what()` is true, while the process runs."""

    def wait(what: Callable[[], object], process: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + 60
        while not what():
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < until
            time.sleep(0.02)

    return wait
