"""What the files below some directories are, so that what a command did to them can be told and
taken back.

In: directories, and a private folder for copies. Out: the paths that differ from the last look,
each put back byte for byte, with its mode and time. What `.gitignore` names is left out, except
what may run later: git's hooks and settings, `.ds4`. Follows no symbolic link. Not for two threads.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ds4_agent.tools.ignore import walk
from ds4_agent.tools.types import ToolError
from ds4_agent.tools.workspace import printable

__all__ = ["Baseline", "Held"]

# A file changed so shortly before a look may change again without another time stamp: the
# coarsest ones (FAT) are of two seconds.
COARSE_NS = 2_000_000_000
CHUNK = 1 << 20
# Below the top of a repository, ignored or not: what runs or decides later, and few files.
WATCHED = (".git/config", ".git/hooks", ".git/info", ".ds4")


@dataclass(frozen=True)
class Held:
    """A thing as it was looked at. `link`: where a symbolic link leads; `copy`: the copy of a file,
    None where it could not be read; `is_fresh`: only its content tells whether it is the same."""

    status: os.stat_result
    link: str = ""
    copy: Path | None = None
    is_fresh: bool = False

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.status.st_mode)

    def content(self) -> bytes:
        """What the file held. Raises OSError."""
        assert self.copy is not None
        return self.copy.read_bytes()


@dataclass
class Baseline:
    """What is below `tops`, each thing at or below one of `without` left out; `folder`, of the
    caller alone, gets the copies."""

    tops: Sequence[Path]
    folder: Path
    without: Sequence[Path] = ()
    held: dict[Path, Held] = field(default_factory=dict)
    new_directories: list[Path] = field(default_factory=list)  # since the last look

    def take(self) -> None:
        """Look at everything; only what is new or changed since the last time is copied. Raises
        OSError where a copy cannot be written."""
        before, self.held = self.held, {}
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, status in self._listed():
            held = before.pop(path, None)
            if held is None or held.is_fresh or _mark(held.status) != _mark(status):
                _drop(held)
                held = self._look(path, status)
            self.held[path] = held
        for gone in before.values():
            _drop(gone)

    def changed(self) -> list[Path]:
        """Everything that is not as it was, in an order in which it can be put back: directories
        before what they hold. New directories are told by what they hold."""
        found = self._directories_of_another_mode()
        seen, self.new_directories = set(), []
        for path, status in self._listed():
            seen.add(path)
            held = self.held.get(path)
            if held is None and stat.S_ISDIR(status.st_mode):
                self.new_directories.append(path)
            elif held is None or not _is_same(path, held, status):
                found.append(path)
        found += [path for path in self.held if path not in seen]
        return sorted(set(found), key=lambda path: path.parts)

    def put_back(self, path: Path, aside: Path | None) -> None:
        """`path` as it was; what is there now is moved to `aside`, which must not exist, or is
        removed. Raises ToolError where it cannot be."""
        held = self.held.get(path)
        try:
            if held is None:
                _out_of_the_way(path, aside)
                return
            if held.kind == stat.S_IFDIR and _is_directory(path):
                path.chmod(stat.S_IMODE(held.status.st_mode))
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_again(path, held, aside)
            self.held[path] = replace(held, status=path.lstat())
        except OSError as error:
            name = printable(os.fspath(path))
            reason = error.strerror or str(error)
            raise ToolError(f"{name} cannot be put back as it was: {reason}") from error

    def remove_new_directories(self) -> None:
        """Those that `changed` found go, as far as they are empty."""
        for path in sorted(self.new_directories, key=lambda path: path.parts, reverse=True):
            with suppress(OSError):  # it holds something that is ignored
                path.rmdir()

    def changed_since(self, moment: int) -> list[Path]:
        """What is there and was changed, in any way, after `moment` (ns since 1970), which needs no
        look before; no directories."""
        return [
            path
            for path, status in self._listed()
            if status.st_ctime_ns > moment and not stat.S_ISDIR(status.st_mode)
        ]

    def close(self) -> None:
        """The copies go."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _listed(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Everything that counts, each once."""
        seen: set[Path] = set()
        left_out = [path for path in self.without if any(map(path.is_relative_to, self.tops))]
        for top in self.tops:
            for path in (*(entry.full for entry in walk(top)), *_watched(top)):
                if path in seen or any(map(path.is_relative_to, left_out)):
                    continue
                seen.add(path)
                with suppress(OSError):  # gone since it was listed
                    yield path, path.lstat()

    def _look(self, path: Path, status: os.stat_result) -> Held:
        is_fresh = status.st_ctime_ns > time.time_ns() - COARSE_NS
        if stat.S_ISLNK(status.st_mode):
            return Held(status, os.readlink(path), is_fresh=is_fresh)
        if not stat.S_ISREG(status.st_mode):
            return Held(status)
        try:
            source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return Held(status)
        with os.fdopen(source, "rb") as file:
            status = os.fstat(source)  # before it is read: what changes meanwhile leaves its mark
            copy = self.folder / secrets.token_hex(8)
            with copy.open("xb") as target:
                shutil.copyfileobj(file, target, CHUNK)
            return Held(status, "", copy, is_fresh)

    def _directories_of_another_mode(self) -> list[Path]:
        """These are put right at once: what they hold could not be looked at otherwise."""
        found = []
        for path, held in self.held.items():
            if held.kind != stat.S_IFDIR:
                continue
            with suppress(OSError):
                status = path.lstat()
                if stat.S_ISDIR(status.st_mode) and status.st_mode != held.status.st_mode:
                    path.chmod(stat.S_IMODE(held.status.st_mode))
                    found.append(path)
        return found


def _watched(top: Path) -> Iterator[Path]:
    git = top / ".git"
    if git.is_symlink() or git.is_file():  # of a worktree: its own settings lie elsewhere
        yield git
        return
    for name in WATCHED:
        path = top / name
        if os.path.lexists(path):
            yield path
        if path.is_dir() and not path.is_symlink():
            for folder, folders, files in os.walk(path):
                yield from (Path(folder, name) for name in (*folders, *files))


def _mark(status: os.stat_result) -> tuple[int, ...]:
    """What no change leaves as it is, but for its coarseness."""
    return (
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )


def _is_same(path: Path, held: Held, status: os.stat_result) -> bool:
    if stat.S_ISDIR(status.st_mode) or status.st_mode != held.status.st_mode:
        return status.st_mode == held.status.st_mode
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path) == held.link
    is_marked = _mark(status) == _mark(held.status)
    if not stat.S_ISREG(status.st_mode) or held.copy is None:
        return is_marked or not stat.S_ISREG(status.st_mode)
    if is_marked and not held.is_fresh:
        return True
    return status.st_size == held.status.st_size and _same_bytes(path, held.copy)


def _same_bytes(path: Path, copy: Path) -> bool:
    try:
        one = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(one, "rb") as left, copy.open("rb") as right:
        while True:
            piece = left.read(CHUNK)
            if piece != right.read(CHUNK):
                return False
            if not piece:
                return True


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _out_of_the_way(path: Path, aside: Path | None) -> None:
    if not os.path.lexists(path):
        return
    if aside is not None:
        aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(path, aside)
    elif _is_directory(path):
        shutil.rmtree(path)
    else:
        path.unlink()


def _make_again(path: Path, held: Held, aside: Path | None) -> None:
    mode = stat.S_IMODE(held.status.st_mode)
    if held.kind == stat.S_IFDIR:
        _out_of_the_way(path, aside)
        path.mkdir()
        path.chmod(mode)
    elif held.kind == stat.S_IFLNK:
        _out_of_the_way(path, aside)
        path.symlink_to(held.link)
    elif held.copy is not None:
        temporary = path.with_name(f".{path.name[:60]}.{secrets.token_hex(6)}.ds4tmp")
        try:
            shutil.copyfile(held.copy, temporary)
            temporary.chmod(mode)
            os.utime(temporary, ns=(held.status.st_atime_ns, held.status.st_mtime_ns))
            _out_of_the_way(path, aside)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
    else:
        raise OSError(0, "there is no copy of it")


def _drop(held: Held | None) -> None:
    if held is not None and held.copy is not None:
        held.copy.unlink(missing_ok=True)
