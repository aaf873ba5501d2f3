"""What is written of a worked session by hand: everything but the results.

In: a TOML file. Out: a `Session`. Raises SourceError with the file and what is wrong in it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent


class SourceError(ValueError):
    """A session's file cannot be used; the message says which and why."""


@dataclass(frozen=True)
class WrittenCall:
    """A call as the agent writes it; `fails` where its answer must be an error."""

    name: str
    arguments: Mapping[str, Any]
    fails: bool = False


@dataclass(frozen=True)
class Step:
    """One turn of the model. `meanwhile` is what the user's own shell does before the calls run;
    the last step of a session has no calls, its `say` is the answer."""

    think: str
    say: str
    calls: tuple[WrittenCall, ...]
    meanwhile: str = ""


@dataclass(frozen=True)
class Commit:
    """Files that the repository begins with, and the message they were committed with."""

    message: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Session:
    """A whole session. `root` is the directory as the transcript shows it; `environment` is what
    the user's shell has set."""

    name: str
    title: str
    root: str
    request: str
    commits: tuple[Commit, ...]
    steps: tuple[Step, ...]
    environment: Mapping[str, str]


def load_sessions(directory: Path = SOURCES) -> list[Session]:
    """Every session in the order of the handbook. Raises SourceError."""
    return [load_session(path) for path in sorted(directory.glob("*.toml"))]


def load_session(path: Path) -> Session:
    """One session. Raises SourceError."""
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
        steps = tuple(_step(step) for step in written["step"])
        session = Session(
            name=path.stem,
            title=written["title"],
            root=written["root"],
            request=written["request"].strip("\n"),
            commits=tuple(Commit(one["message"], one["files"]) for one in written["commit"]),
            steps=steps,
            environment=written.get("environment", {}),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SourceError(f"{path.name}: {type(error).__name__}: {error}") from error
    _check_shape(path, steps)
    return session


def _step(written: Mapping[str, Any]) -> Step:
    calls = tuple(_call(call) for call in written.get("call", ()))
    think, say = written.get("think", ""), written.get("say", "")
    return Step(think.strip("\n"), say.strip("\n"), calls, written.get("meanwhile", ""))


def _call(written: Mapping[str, Any]) -> WrittenCall:
    """All keys but `tool` and `fails` are arguments, in the order they are written in."""
    arguments = {name: value for name, value in written.items() if name not in ("tool", "fails")}
    return WrittenCall(written["tool"], arguments, written.get("fails", False))


def _check_shape(path: Path, steps: Sequence[Step]) -> None:
    *working, last = steps
    if last.calls or not last.say:
        raise SourceError(f"{path.name}: the last step must be the answer, without calls")
    if not all(step.calls for step in working):
        raise SourceError(f"{path.name}: a step before the last has no calls")
