"""Commits of what a batch changed: all at its end, or one an item.

In: a repository and paths. Out: commits of exactly these paths, whatever is staged beside them. No
hook runs (`tools.git`). Raises ToolError with git's complaint.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import UsageError

if TYPE_CHECKING:
    from ds4_agent.tools.git import Repository

__all__ = ["commit_message", "commit_paths", "dirty_paths", "open_for_commits"]

PATIENCE = 20  # tries while another git holds the index
PAUSE_S = 0.1


def open_for_commits(root: Path) -> Repository:
    """The repository, where commits can be made. Raises UsageError."""
    from ds4_agent.tools.git import open_repository
    from ds4_agent.tools.types import ToolError

    try:
        repository = open_repository(root, threading.Event())
        known = repository.call("var", "GIT_COMMITTER_IDENT")
    except ToolError as error:
        raise UsageError(f"--commit: {error}") from error
    if known.status != 0:
        raise UsageError(f"--commit: {known.complaint}")
    return repository


def dirty_paths(repository: Repository) -> frozenset[str]:
    """The paths, relative to the directory, that differ from the last commit, new ones too."""
    root = repository.directory
    found = repository.names("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    return frozenset(os.path.relpath(repository.top / entry[3:], root) for entry in found)


def commit_message(prompt: str, *, path: str = "", files: int = 0, batch: str = "") -> str:
    """`src/a.py: the prompt`, or `the prompt (12 files)`; below it, the batch."""
    said = one_line(prompt, 60)
    subject = f"{one_line(path, 120)}: {said}" if path else f"{said} ({files} files)"
    return f"{subject}\n\nds4-agent batch {batch}"


def commit_paths(repository: Repository, paths: Sequence[str], message: str, folder: Path) -> str:
    """Commit these paths as they are now; the commit's hash. Where they are committed already, the
    hash of the commit that did it. `folder`: where git is told the paths in a file."""
    listed = folder / "paths"
    listed.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
    named = (f"--pathspec-from-file={listed}", "--pathspec-file-nul")
    try:
        _patient(repository, "add", "--all", *named)
        options = ("--quiet", "--no-verify", "--no-gpg-sign", f"--message={message}")
        if not _differs(repository, paths):
            return repository.checked("log", "-1", "--format=%H", "--", paths[0]).strip()
        _patient(repository, "commit", *options, "--only", *named)
        return repository.checked("rev-parse", "HEAD").strip()
    finally:
        listed.unlink(missing_ok=True)


def _differs(repository: Repository, paths: Sequence[str]) -> bool:
    staged = set(repository.names("diff", "--cached", "--name-only", "-z", "--relative"))
    return not staged.isdisjoint(paths)


def _patient(repository: Repository, *arguments: str) -> None:
    from ds4_agent.tools.types import ToolError

    for _ in range(PATIENCE):
        done = repository.call(*arguments, locks=True)
        if done.status == 0:
            return
        if "index.lock" not in done.err:
            break
        time.sleep(PAUSE_S)
    raise ToolError(f"git {arguments[0]}: {done.complaint}")
