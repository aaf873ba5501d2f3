"""The tool `git`: what the model may do with the repository of the workspace.

In: an action and its parameters. Out: git's own output, bounded, or one line of what was done.
Touches only what it was asked to: paths are literal and inside the workspace.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ds4_agent.tools.api import tool
from ds4_agent.tools.files import count
from ds4_agent.tools.git import Repository, open_repository
from ds4_agent.tools.types import Effect, ToolContext, ToolError, ToolResult
from ds4_agent.tools.workspace import OutsideError, printable

Action = Literal[
    "status",
    "diff",
    "log",
    "show",
    "blame",
    "add",
    "commit",
    "restore",
    "branch",
    "switch",
    "stash",
    "worktree",
]
DEFAULT_COMMITS = 20
NO_DRIVERS = ("--no-ext-diff", "--no-textconv")
STASH_ENTRY = re.compile(r"stash@\{\d+\}")


@dataclass(frozen=True)
class Call:
    """One call's parameters. `path` is relative to the directory git runs in, "" without one."""

    repository: Repository
    path: str
    shown: str
    message: str
    revision: str
    branch: str
    staged: bool
    max_count: int | None

    @property
    def paths(self) -> tuple[str, ...]:
        return ("--", self.path) if self.path else ("--",)

    @property
    def revisions(self) -> tuple[str, ...]:
        return (self.revision,) if self.revision else ()

    def needs_path(self, action: str) -> None:
        if not self.path:
            raise ToolError(f"git {action} needs path")


def effect_of(arguments: Mapping[str, Any]) -> Effect:
    """What a call does: reading, changing the index or a branch's name, or more."""
    match arguments.get("action"):
        case "status" | "diff" | "log" | "show" | "blame":
            return "read"
        case "branch" if not arguments.get("branch"):
            return "read"
        case "worktree" if not arguments.get("path"):
            return "read"
        case "stash" if arguments.get("max_count"):
            return "read"
        case "add":
            return "edit"
        case _:
            return "execute"


@tool(effect="execute", classify=effect_of)
def git(
    context: ToolContext,
    action: Action,
    path: str | None = None,
    message: str | None = None,
    revision: str | None = None,
    branch: str | None = None,
    staged: bool = False,
    max_count: int | None = None,
) -> ToolResult:
    """Work with the git repository of the workspace; hooks are not run.

    action: what to do
    path: file or directory to act on; needed by blame, add and restore, and for a new worktree
    message: message of a commit or a stash
    revision: commit or range to look at or to restore from; start of a new branch;
     stash entry to bring back, as in stash@{0}
    branch: branch to create, switch to, or check out in a worktree
    staged: diff the index, or restore only the index
    max_count: how many commits log shows (default 20); with stash: list that many entries
    """
    if max_count is not None and max_count < 1:
        raise ToolError("max_count must be at least 1")
    plain_revision, plain_branch = _plain("revision", revision), _plain("branch", branch)
    repository = open_repository(context.workspace.root, context.cancel)
    shown, literal = _literal(context, path) if path else ("", "")
    call = Call(
        repository,
        path=literal,
        shown=shown,
        message=message or "",
        revision=plain_revision,
        branch=plain_branch,
        staged=staged,
        max_count=max_count,
    )
    return ToolResult(ACTIONS[action](call).removesuffix("\n"))


def status(call: Call) -> str:
    printed = call.repository.checked(
        "status", "--short", "--branch", "--ignore-submodules=dirty", *call.paths
    )
    first, *changes = printed.splitlines()
    head = _head(call, first.removeprefix("## "))
    return "\n".join([head, *changes]) if changes else f"{head}, nothing to commit"


def diff(call: Call) -> str:
    cached = ("--cached",) if call.staged else ()
    options = ("diff", *NO_DRIVERS, "--ignore-submodules=dirty", "--submodule=short", *cached)
    printed = call.repository.checked(*options, *call.revisions, *call.paths)
    return printed or ("No staged changes" if call.staged else "No changes")


def log(call: Call) -> str:
    wanted = call.max_count or DEFAULT_COMMITS
    # One more than is shown, to know whether there are more.
    options = ("log", *NO_DRIVERS, "--format=%h %s", f"--max-count={wanted + 1}")
    done = call.repository.call(*options, *call.revisions, *call.paths)
    if done.status != 0 and "does not have any commits yet" in done.err:
        return "No commits yet"
    if done.status != 0:
        raise ToolError(done.complaint)
    commits = done.out.splitlines()
    if len(commits) > wanted:
        commits[wanted:] = ["… there are more; set max_count"]
    return "\n".join(commits) or "No commits"


def show(call: Call) -> str:
    if call.path:  # the file as it was, which no other action gives
        name = posixpath.normpath(call.path)
        return call.repository.checked(
            "show", *NO_DRIVERS, f"{call.revision or 'HEAD'}:./{name}", "--"
        )
    return call.repository.checked("show", *NO_DRIVERS, *call.revisions, "--")


def blame(call: Call) -> str:
    call.needs_path("blame")
    return call.repository.checked(
        "blame", "--no-textconv", "--date=short", *call.revisions, *call.paths
    )


def add(call: Call) -> str:
    call.needs_path("add")
    printed = call.repository.checked("add", "--all", "--verbose", *call.paths, locks=True)
    added = len(printed.splitlines())
    return f"Added {count(added, 'file')}" if added else f"Nothing to add in {call.shown}"


def commit(call: Call) -> str:
    if not call.message.strip():
        raise ToolError("git commit needs message")
    options = ("commit", "--quiet", "--no-verify", "--no-gpg-sign", f"--message={call.message}")
    only = ("--only", *call.paths) if call.path else ()
    done = call.repository.call(*options, *only, locks=True)
    if done.status != 0:
        if not done.err and "nothing to commit" in done.out:
            raise ToolError("nothing to commit")
        if not done.err:  # git lists what it would have taken
            raise ToolError("nothing is staged to commit; use git add first, or give path")
        raise ToolError(done.complaint)
    look = ("log", "-1", "--format=%h %s", "--name-only", "--first-parent", "-m", "--no-renames")
    first, *files = call.repository.checked(*look, *NO_DRIVERS, "--").splitlines()
    short, _, subject = first.partition(" ")
    return f"Committed {short}: {subject} ({count(len([f for f in files if f]), 'file')})"


def restore(call: Call) -> str:
    call.needs_path("restore")
    options = (*(("--staged",) if call.staged else ()), *_source(call))
    call.repository.checked("restore", *options, *call.paths, locks=True)
    return f"{'Unstaged' if call.staged else 'Restored'} {call.shown}"


def branch(call: Call) -> str:
    if not call.branch:
        return call.repository.checked("branch", "--list") or "No branches yet"
    call.repository.checked("branch", "--no-track", call.branch, *call.revisions, locks=True)
    return f"Created branch {call.branch}"


def switch(call: Call) -> str:
    if not call.branch:
        raise ToolError("git switch needs branch")
    options = ("switch", "--quiet", "--no-guess", "--no-recurse-submodules")
    if call.revision:
        create = ("--no-track", "--create", call.branch, call.revision)
        call.repository.checked(*options, *create, locks=True)
        return f"Switched to new branch {call.branch}"
    done = call.repository.call(*options, call.branch, locks=True)
    if done.status != 0 and "invalid reference" in done.err:
        raise ToolError(f"there is no branch {call.branch}; create it with action branch")
    if done.status != 0:
        raise ToolError(done.complaint)
    return f"Switched to branch {call.branch}"


def stash(call: Call) -> str:
    if call.max_count is not None:
        listed = call.repository.checked("stash", "list", f"--max-count={call.max_count}")
        return listed or "No stash entries"
    if call.revision:
        if not STASH_ENTRY.fullmatch(call.revision):
            raise ToolError(f"{call.revision} is no stash entry; they are named as in stash@{{0}}")
        call.repository.checked("stash", "pop", "--quiet", call.revision, locks=True)
        return f"Brought back {call.revision}"
    message = (f"--message={call.message}",) if call.message else ()
    paths = call.paths if call.path else ()
    printed = call.repository.checked("stash", "push", *message, *paths, locks=True)
    if "No local changes" in printed:
        return "Nothing to stash"
    return "Stashed as stash@{0}"


def worktree(call: Call) -> str:
    if not call.path:
        return call.repository.checked("worktree", "list")
    options = ("worktree", "add", "--quiet")
    known = (
        call.branch
        and not call.repository.call(
            "show-ref", "--verify", "--quiet", f"refs/heads/{call.branch}"
        ).status
    )
    if known:
        call.repository.checked(*options, "--", call.path, call.branch, locks=True)
        return f"Added worktree {call.shown} on branch {call.branch}"
    create = ("-b", call.branch) if call.branch else ("--detach",)
    start = call.revision or "HEAD"
    call.repository.checked(*options, *create, "--", call.path, start, locks=True)
    where = f"on new branch {call.branch}" if call.branch else f"at {start}"
    return f"Added worktree {call.shown} {where}"


ACTIONS: dict[str, Callable[[Call], str]] = {
    "status": status,
    "diff": diff,
    "log": log,
    "show": show,
    "blame": blame,
    "add": add,
    "commit": commit,
    "restore": restore,
    "branch": branch,
    "switch": switch,
    "stash": stash,
    "worktree": worktree,
}


def _head(call: Call, text: str) -> str:
    """`git status --branch`'s first line as a sentence."""
    for start in ("No commits yet on ", "Initial commit on "):
        if text.startswith(start):
            return f"On branch {text.removeprefix(start)}, no commits yet"
    if text.startswith("HEAD (no branch)"):
        at = call.repository.checked("rev-parse", "--short", "HEAD").strip()
        return f"Not on a branch, at {at}"
    names, _, distance = text.partition(" [")
    local, _, remote = names.partition("...")
    if not distance:
        return f"On branch {local}"
    if distance.startswith("gone"):
        return f"On branch {local}, {remote} is gone"
    parts = []
    for word, number in re.findall(r"(ahead|behind) (\d+)", distance):
        parts.append(f"{count(int(number), 'commit')} {word}{' of' if word == 'ahead' else ''}")
    return f"On branch {local}, {' and '.join(parts)} {remote}"


def _literal(context: ToolContext, path: str) -> tuple[str, str]:
    """(as shown, as git gets it): links on the way are resolved, the last one is git's to track."""
    name = posixpath.basename(path.rstrip("/"))
    if name in ("", ".", ".."):
        place = context.workspace.locate(path)
        return place.shown, os.path.relpath(place.real, context.workspace.root)
    try:
        place = context.workspace.locate(posixpath.dirname(path.rstrip("/")) or ".")
    except OutsideError:
        raise OutsideError(f"{path} is outside the workspace") from None
    shown = printable(name) if place.shown == "." else f"{place.shown}/{printable(name)}"
    return shown, os.path.relpath(place.real / name, context.workspace.root)


def _plain(what: str, name: str | None) -> str:
    """A revision or branch that git cannot take for an option."""
    if name is None:
        return ""
    if name.startswith("-") or not name.isprintable() or not name.strip():
        raise ToolError(f"{name!r} is no {what}")
    return name


def _source(call: Call) -> tuple[str, ...]:
    return (f"--source={call.revision}",) if call.revision else ()
