"""Which files a listing or a search leaves out: `.gitignore` files read by us, never by git.

In: a directory of the workspace. Out: its entries in a stable order, ignored ones and `.git` left
out. Reads `.gitignore` and `.git/info/exclude` as plain text; follows no symbolic link.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

IGNORE_FILE_LIMIT = 1024 * 1024
STARS = 3  # in one name of a pattern


@dataclass(frozen=True)
class Entry:
    """One thing in a directory; `path` is relative to where the walk began."""

    path: str
    full: Path
    is_directory: bool
    is_file: bool


@dataclass(frozen=True)
class Rules:
    """The ignore files that hold in a directory: the nearest last, it decides first."""

    specs: tuple[tuple[Path, GitIgnoreSpec], ...] = ()

    def entering(self, directory: Path) -> Rules:
        """The rules inside `directory`: its own `.gitignore` added."""
        spec = _load(directory / ".gitignore")
        return Rules((*self.specs, (directory, spec))) if spec else self

    def ignores(self, path: Path, *, is_directory: bool) -> bool:
        for base, spec in reversed(self.specs):
            if path == base:
                continue
            name = path.relative_to(base).as_posix() + ("/" if is_directory else "")
            decided = spec.check_file(name).include
            if decided is not None:
                return decided
        return False


def rules_for(directory: Path) -> Rules:
    """The rules from the top of the repository that holds `directory` down to above it."""
    above: list[Path] = []
    for candidate in (directory, *directory.parents):
        above.append(candidate)
        if (candidate / ".git").exists():
            break
    else:
        return Rules()  # no repository: only the .gitignore files below count
    rules = Rules()
    exclude = _load(above[-1] / ".git" / "info" / "exclude")
    if exclude:
        rules = Rules(((above[-1], exclude),))
    for parent in reversed(above[1:]):
        rules = rules.entering(parent)
    return rules


def is_ignored(directory: Path) -> bool:
    """Whether the rules above leave out `directory`, or a directory that holds it."""
    return rules_for(directory).ignores(directory, is_directory=True)


def walk(directory: Path, *, depth: int | None = None) -> Iterator[Entry]:
    """Everything below `directory` that is not ignored, each directory before what it holds.

    Who asks for an ignored directory by its name wants to see it: then only what lies in it counts.
    """
    rules = Rules() if is_ignored(directory) else rules_for(directory)
    yield from _walk(directory, "", rules, depth)


def _walk(directory: Path, prefix: str, rules: Rules, depth: int | None) -> Iterator[Entry]:
    rules = rules.entering(directory)
    try:
        with os.scandir(directory) as found:
            children = sorted(found, key=lambda child: child.name)
    except OSError:
        return  # unreadable or gone: a walk shows what there is to see
    for child in children:
        full = Path(child.path)
        is_directory = child.is_dir(follow_symlinks=False)
        if child.name == ".git" or rules.ignores(full, is_directory=is_directory):
            continue
        path = prefix + child.name
        yield Entry(path, full, is_directory, child.is_file(follow_symlinks=False))
        if is_directory and (depth is None or depth > 1):
            yield from _walk(full, path + "/", rules, None if depth is None else depth - 1)


def compile_patterns(patterns: Iterable[str]) -> GitIgnoreSpec:
    """The patterns that mean something; a wrong one, or one that may take for ever, is left out."""
    usable: list[str] = []
    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except (ValueError, re.error):
            continue
        if is_cheap(pattern):
            usable.append(pattern)
    return GitIgnoreSpec.from_lines(usable)


def is_cheap(pattern: str) -> bool:
    """Whether matching is quick: each further star multiplies the work by the name's length.

    A repository could otherwise bring a `.gitignore` and a long file name that stop the agent.
    """
    parts = pattern.split("/")
    if sum(part.startswith("**") for part in parts) > STARS:
        return False
    return all(len(re.findall(r"\*+", part)) <= STARS for part in parts)


def _load(path: Path) -> GitIgnoreSpec | None:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # a pipe or a link named .gitignore
            return None
        with path.open("rb") as file:
            text = file.read(IGNORE_FILE_LIMIT).decode("utf-8", "replace")
    except OSError:
        return None
    return compile_patterns(line.removesuffix("\r") for line in text.split("\n"))
