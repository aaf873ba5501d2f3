"""What a task left behind, and whether that is right: end states and answers, not calls.

In: a directory before and after, and after a right run. Out: `State`s and texts to compare. Two
ways to the same bytes are both right; a file that a right run leaves alone has to stay as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

IGNORED = (".git", "__pycache__", ".pytest_cache")
# What no two runs have in common: how long tests took, and hashes of commits, which hold the time.
VOLATILE = ((re.compile(r"\b\d+\.\d+ ?s\b"), "0.00s"), (re.compile(r"\b[0-9a-f]{7}\b"), "0000000"))


@dataclass(frozen=True)
class State:
    """Every file with its bytes, and of a repository what git can tell: branch, commits, index."""

    files: Mapping[str, bytes]
    git: tuple[str, ...] = ()


def state_of(root: Path) -> State:
    """The state of a directory; files of git and of caches are left out."""
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not set(path.relative_to(root).parts) & set(IGNORED)
    }
    return State(files, history(root) if (root / ".git").is_dir() else ())


def history(root: Path) -> tuple[str, ...]:
    """The checked-out branch, all branches with their commits' trees and subjects, the index."""
    commands = (
        ("symbolic-ref", "HEAD"),
        ("for-each-ref", "--format=%(refname) %(tree) %(contents:subject)"),
        ("log", "--all", "--format=%T %s"),
        ("status", "--porcelain", "--untracked-files=all"),
        ("diff", "--cached"),
    )
    return tuple(asked(root, *command) for command in commands)


def asked(root: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", os.fspath(root), *arguments]
    return subprocess.run(command, check=False, capture_output=True, env=environment).stdout.decode(
        "utf-8", "replace"
    )


def changed(before: State, after: State) -> set[str]:
    """Names of the files that were written, made or removed."""
    names = before.files.keys() | after.files.keys()
    return {name for name in names if before.files.get(name) != after.files.get(name)}


def difference(right: State, after: State) -> str:
    """What differs from the right end state, in words; "" for nothing."""
    wrong = sorted(changed(right, after))
    parts = [f"files are not as they should be: {', '.join(wrong)}"] if wrong else []
    if right.git != after.git:
        parts.append("the repository's branches, commits or index are not as they should be")
    return "; ".join(parts)


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same, times and hashes of commits apart."""
    return steady(one) == steady(other)


def steady(text: str) -> str:
    for pattern, instead in VOLATILE:
        text = pattern.sub(instead, text)
    return text
