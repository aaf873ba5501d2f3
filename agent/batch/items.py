"""The items of a batch: which files, or which lines of a JSONL file.

In: patterns, `--items FILE`, `--from-git REV`. Out: `Item`s in a fixed order. What git ignores is
left out; an item's path always lies in the directory worked in. Nothing is changed here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.batch.globs import fits, normal
from ds4_agent.agent.errors import UsageError

if TYPE_CHECKING:
    from ds4_agent.tools.workspace import Workspace

__all__ = ["Item", "Source", "gather_items"]


@dataclass(frozen=True)
class Item:
    """One item. `number` counts from 1; `path` is relative to the directory, "" for none;
    `exists`: the file was there when the batch began; `fields`: its line of `--items`."""

    number: int
    path: str
    exists: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        return self.path or f"item {self.number}"


@dataclass(frozen=True)
class Source:
    """Where the items come from."""

    globs: tuple[str, ...] = ()
    items_file: Path | None = None
    revision: str | None = None


def gather_items(
    source: Source, workspace: Workspace, warn: Callable[[str], None]
) -> tuple[Item, ...]:
    """Every item, in order; `warn` is told of patterns that fit nothing. Raises UsageError, also
    where there is no item at all."""
    if source.items_file is not None and (source.globs or source.revision):
        raise UsageError("--items FILE names the items; leave out the patterns and --from-git")
    if source.items_file is not None:
        found = tuple(_from_file(source.items_file, workspace))
        if not found:
            raise UsageError(f"{source.items_file} holds no item")
        return found
    globs = tuple(map(normal, source.globs))
    if source.revision is not None:
        paths = _changed_since(source.revision, workspace.root)
        said = f"no file that exists here changed since {source.revision}"
    elif globs:
        paths = _walked(workspace.root)
        said = "nothing to do"
    else:
        raise UsageError("which files? give patterns, --items FILE or --from-git REV")
    chosen = _chosen(globs, paths, workspace.root, warn) if globs else paths
    if not chosen:
        raise UsageError(f"no item: {said}" if not globs else _no_match(globs, workspace.root))
    return tuple(Item(number, path) for number, path in enumerate(chosen, 1))


def _walked(root: Path) -> list[str]:
    from ds4_agent.tools.ignore import walk

    return [entry.path for entry in walk(root) if entry.is_file]


def _chosen(
    globs: Sequence[str], paths: Sequence[str], root: Path, warn: Callable[[str], None]
) -> list[str]:
    chosen = [path for path in paths if any(fits(glob, path) for glob in globs)]
    if chosen:
        for glob in globs:
            if not any(fits(glob, path) for path in chosen):
                warn(_no_match((glob,), root))
    return chosen


def _no_match(globs: Sequence[str], root: Path) -> str:
    glob = globs[0]
    if (root / glob).is_dir():
        return f"{glob} is a directory; '{glob}/**' is every file in it"
    if (root / glob).is_file():
        return f"{glob} is left out: it is ignored by .gitignore, or not among the changed files"
    return f"no file fits {', '.join(globs)} (what .gitignore names is left out)"


def _changed_since(revision: str, root: Path) -> list[str]:
    """The files below `root` that differ from `revision` now; deleted ones are none."""
    from ds4_agent.tools.git import open_repository
    from ds4_agent.tools.types import ToolError

    if revision.startswith("-") or not revision.strip():
        raise UsageError(f"{revision!r} is no revision for --from-git")
    arguments = ("--no-renames", "--no-ext-diff", "--no-textconv", "--diff-filter=d")
    try:
        repository = open_repository(root, threading.Event())
        names = repository.names(
            "diff", "--name-only", "-z", "--relative", *arguments, revision, "--"
        )
    except ToolError as error:
        raise UsageError(f"--from-git {revision}: {error}") from error
    return sorted(name for name in names if (root / name).is_file())


def _from_file(file: Path, workspace: Workspace) -> Iterator[Item]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8: byte {error.start}") from error
    number = 0
    for at, line in enumerate(lines, 1):
        if line.strip():
            number += 1
            yield _item(number, line, f"{file}:{at}", workspace)


def _item(number: int, line: str, where: str, workspace: Workspace) -> Item:
    from ds4_agent.tools.types import ToolError

    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UsageError(f'{where}: not an object; an item is like {{"path": "src/a.py"}}')
    path = fields.get("path", "")
    if not isinstance(path, str):
        raise UsageError(f"{where}: path must be a text")
    if not path:
        return Item(number, "", False, fields)
    try:
        place = workspace.locate(path)
    except ToolError as error:
        raise UsageError(f"{where}: {error}") from error
    if not place.real.is_relative_to(workspace.root):
        raise UsageError(f"{where}: {path} is outside the directory")
    if place.real.is_dir():
        raise UsageError(f"{where}: {path} is a directory; an item is one file")
    return Item(
        number, place.real.relative_to(workspace.root).as_posix(), place.real.exists(), fields
    )
