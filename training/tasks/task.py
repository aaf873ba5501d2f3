"""What a task is: files, one or more requests, and for each the right behaviour as a policy.

A policy is a generator: it yields the calls to make, is sent the text of each real result and
returns the right final answer. Training plays it to write episodes; the evaluation runs it beside
the model, on the results the model really got.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

Policy = Generator["Call", str, str]


@dataclass(frozen=True)
class Call:
    """One tool call, arguments in the schema's order."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Ask:
    """A request of the user and a fresh policy that does what it asks."""

    text: str
    policy: Callable[[], Policy]


@dataclass(frozen=True)
class Git:
    """Makes the task's directory a git repository.

    `commits`: (message, files written) each; `changes`: files written (None: deleted) after the
    last commit; `staged`: which of the changes are added to the index.
    """

    commits: tuple[tuple[str, Mapping[str, str]], ...]
    changes: Mapping[str, str | None] = field(default_factory=dict)
    staged: tuple[str, ...] = ()
    branch: str = "main"


@dataclass(frozen=True)
class Task:
    """Something to do in a directory of its own.

    `is_pooled`: it makes one call, in a project or repository that other tasks use too, so that the
    call's result can be kept. `tests` is the command of the prompt's "Tests:" line when the right
    call depends on it ("unknown" for a repository without one), else None: any line will do.
    """

    family: str
    files: Mapping[str, str]
    asks: tuple[Ask, ...]
    git: Git | None = None
    tests: str | None = None
    is_pooled: bool = False


def say(answer: str) -> Callable[[], Policy]:
    """A policy that calls nothing."""

    def policy() -> Policy:
        yield from ()
        return answer

    return policy
