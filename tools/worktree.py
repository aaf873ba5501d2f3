"""A copy of the repository to work in, as a git worktree, and what changed there.

In: the workspace's directory. Out: a directory whose files are those of the workspace now, what is
not committed included (ignored files and submodules are not copied), and later a `Patch`. The
workspace, its index and its branches stay as they are; the copy is removed with the block.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.tools.git import Repository, open_repository
from ds4_agent.tools.types import ToolError
from ds4_agent.tools.workspace import READ_LIMIT, MissingFileError, Workspace

__all__ = ["Change", "Patch", "Worktree", "apply_patch", "worktree"]

_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=all")
_PATHS = ("--src-prefix=a/", "--dst-prefix=b/")
_FILE_MODES = ("100644", "100755")
_NONE = "000000"


@dataclass(frozen=True)
class Change:
    """A file that changed, by its path below the repository's top. `before` is the name git gives
    its old content (None: no file), `after` the new content (None: removed). `reason`: why it
    cannot be taken over, "" where it can."""

    path: str
    before: str | None
    after: bytes | None
    reason: str = ""


@dataclass(frozen=True)
class Patch:
    """What changed in a worktree: for `git apply`, and file by file."""

    data: bytes
    changes: tuple[Change, ...]

    @property
    def text(self) -> str:
        """The patch for a reader."""
        return self.data.decode("utf-8", "replace")


class Worktree:
    """A copy to work in. `root` is where the workspace's directory is in it."""

    def __init__(self, repository: Repository, root: Path, base: str, patch: Path) -> None:
        self.root = root
        self._repository = repository
        self._base = base
        self._patch = patch

    def patch(self) -> Patch:
        """What is different now from what was copied. Raises ToolError."""
        after = _tree(self._repository)
        raw = ("--raw", "-z", "--no-abbrev", self._base, after, "--")
        fields = self._repository.names(*_DIFF, *raw)
        self._repository.checked(
            *_DIFF, *_PATHS, "--binary", f"--output={self._patch}", self._base, after, "--"
        )
        pairs = zip(fields[::2], fields[1::2], strict=True)
        changes = tuple(_change(self._repository.top, *pair) for pair in pairs)
        return Patch(self._patch.read_bytes(), changes)


@contextmanager
def worktree(directory: Path, cancel: threading.Event) -> Iterator[Worktree]:
    """A copy of the repository that holds `directory`. Raises ToolError where it cannot be made."""
    repository = open_repository(directory, cancel)
    place = Path(os.path.realpath(tempfile.mkdtemp(prefix="ds4-task-")))
    top = place / repository.top.name
    try:
        _add(repository, top)
        copy = open_repository(top, cancel)
        _copy_uncommitted(repository, top)
        base = _tree(copy)
        copy.checked("reset", "--quiet", "HEAD", locks=True)
        root = top / directory.relative_to(repository.top)
        root.mkdir(parents=True, exist_ok=True)
        yield Worktree(copy, root, base, place / "patch")
    finally:
        _remove(directory, top)
        shutil.rmtree(place, ignore_errors=True)


def apply_patch(patch: Patch, workspace: Workspace) -> list[str]:
    """Make the changes in the workspace, through its own writes; the names of the files.

    Raises ToolError with nothing changed where a file is not what the patch was made from.
    """
    cancel = threading.Event()
    top = open_repository(workspace.root, cancel).top
    prepared = []
    for change in patch.changes:
        place = workspace.locate(os.fspath(top / change.path))
        if change.reason:
            raise ToolError(f"{place.shown} cannot be taken over: {change.reason}")
        try:
            base = workspace.read(place)
        except MissingFileError:
            base = None
        if (None if base is None else _blob_name(base.data, change.before)) != change.before:
            raise ToolError(f"{place.shown} was changed meanwhile; nothing was taken over")
        prepared.append((place, base, change.after))
    for place, base, after in prepared:
        if after is not None:
            workspace.write(place, after, base=base)
        elif base is not None:
            workspace.remove(place, base=base)
    return [place.shown for place, _, _ in prepared]


def _add(repository: Repository, top: Path) -> None:
    done = repository.call(
        "worktree", "add", "--quiet", "--detach", "--", os.fspath(top), "HEAD", locks=True
    )
    if done.status != 0 and "HEAD" in done.err:
        raise ToolError("a worktree needs a commit to begin from, and there is none yet")
    if done.status != 0:
        raise ToolError(f"cannot make a worktree: {done.complaint}")


def _remove(directory: Path, top: Path) -> None:
    # Not to be interrupted: what stays behind is in the user's repository.
    with suppress(ToolError):
        repository = open_repository(directory, threading.Event())
        path = os.fspath(top)
        repository.call("worktree", "remove", "--force", "--force", "--", path, locks=True)


def _tree(copy: Repository) -> str:
    """The name of a tree of everything in the copy that is not ignored."""
    copy.checked("add", "--all", locks=True)
    return copy.checked("write-tree", locks=True).strip()


def _copy_uncommitted(repository: Repository, top: Path) -> None:
    look = ("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    whole = Repository(repository.top, repository.top, repository.overrides, repository.cancel)
    names = [entry[3:] for entry in whole.names(*look, "--ignore-submodules=all")]
    gone = [name for name in names if not os.path.lexists(repository.top / name)]
    for name in gone:  # first: a directory may be where a file was
        _clear(top, top / name)
    for name in names:
        if name not in gone:
            _copy(repository.top / name, top, top / name)


def _copy(source: Path, top: Path, target: Path) -> None:
    status = source.lstat()
    is_small = stat.S_ISREG(status.st_mode) and status.st_size <= READ_LIMIT
    if not (is_small or stat.S_ISLNK(status.st_mode)):
        return
    _clear(top, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if _is_inside(top, target):
        shutil.copy2(source, target, follow_symlinks=False)


def _clear(top: Path, target: Path) -> None:
    """No file is at `target` any more, and none is where a directory above it has to be."""
    for path in (target, *target.parents):
        if path == top:
            return
        if path.is_symlink() or path.is_file():
            if _is_inside(top, path):
                path.unlink()
        elif path == target and path.is_dir():
            shutil.rmtree(path)


def _is_inside(top: Path, path: Path) -> bool:
    return Path(os.path.realpath(path.parent)).is_relative_to(top)


def _change(top: Path, raw: str, path: str) -> Change:
    """One entry of `git diff --raw`: `:100644 100644 <old> <new> M`, and its path."""
    old_mode, new_mode, old, _, _ = raw.removeprefix(":").split(" ")
    before = None if old_mode == _NONE else old
    modes = [mode for mode in (old_mode, new_mode) if mode != _NONE]
    if any(mode not in _FILE_MODES for mode in modes):
        return Change(path, before, None, "it is or was no regular file")
    if new_mode == _NONE:
        return Change(path, before, None)
    if "100755" in modes and old_mode != new_mode:
        return Change(path, before, None, "its mode changed")
    try:
        return Change(path, before, (top / path).read_bytes())
    except OSError as error:
        return Change(path, before, None, f"it cannot be read: {error.strerror}")


def _blob_name(data: bytes, like: str | None) -> str:
    """The name git gives a content, in the kind of names that `like` is."""
    digest = hashlib.sha256 if like is not None and len(like) == 64 else hashlib.sha1
    return digest(b"blob %d\0" % len(data) + data).hexdigest()
