"""The directories a session works in: paths resolved against them, safe reads, atomic writes.

In: paths as the model writes them. Out: Places inside a root, bytes of regular files, whole-file
writes that leave the old file or the new one and nothing else. Never follows a symlink that it
has not resolved and checked itself; never writes inside `.git`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ds4_agent.tools.types import ToolError

READ_LIMIT = 64 * 1024 * 1024  # bytes of a file that are ever held in memory
SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
KEPT_ATTRIBUTES = ("user.", "system.posix_acl_access")


class MissingFileError(ToolError):
    """The path names nothing."""


class OutsideError(ToolError):
    """The path leads out of every root."""


@dataclass(frozen=True)
class Place:
    """A path of the model: as it is shown, and where it really is (no symlink in `real`)."""

    shown: str
    real: Path


@dataclass(frozen=True)
class FileBytes:
    """A regular file's content at one moment."""

    data: bytes
    status: os.stat_result


class Watch(Protocol):
    """Told of each change of a file, in the thread that makes it. None is no file."""

    def before_write(
        self, path: Path, old: bytes | None, mode: int | None, new: bytes | None
    ) -> None:
        """`path`, free of symlinks, is about to hold `new`. What this raises prevents it."""
        ...

    def after_write(self, path: Path) -> None:
        """It does now. Not called where the change failed."""
        ...


class Stage(Protocol):
    """Holds what files are to become, so that the files themselves are left as they are."""

    def read(self, path: Path) -> FileBytes | None:
        """What `path`, free of symlinks, is to become; None where nothing is held of it."""
        ...

    def write(self, place: Place, data: bytes, base: FileBytes | None) -> None:
        """Hold `data` for `place`; `base` is what a read gave before. Raises ToolError."""
        ...


class Workspace:
    """Roots, and the memory of what the agent has seen of each file (the hash of its bytes)."""

    def __init__(
        self,
        root: Path,
        extra_roots: Sequence[Path] = (),
        watch: Watch | None = None,
        stage: Stage | None = None,
    ) -> None:
        """`watch` is told of each change; with a `stage` reads and writes are its own, and no file
        changes."""
        self._watch = watch
        self._stage = stage
        self.root = Path(os.path.realpath(root))
        self.roots = (self.root, *(Path(os.path.realpath(extra)) for extra in extra_roots))
        self._admitted: frozenset[Path] = frozenset()
        self._seen: dict[Path, bytes] = {}
        self._lock = threading.Lock()
        self._changing = threading.Lock()  # one change at a time, of all that share the files

    def fork(self, watch: Watch | None) -> Workspace:
        """The same directories for another agent that has seen the same files. What either sees
        or changes from here on, the other has not seen; `watch` is told of the other's changes."""
        other = Workspace(self.root, self.roots[1:], watch)
        with self._lock:
            other._seen = dict(self._seen)
        other._admitted, other._changing = self._admitted, self._changing
        return other

    def locate(self, path: str) -> Place:
        """Where `path` leads, every symlink on the way resolved. Raises OutsideError."""
        absolute, real = self._resolved(path)
        if self._root_of(real) is None:
            raise OutsideError(f"{path} is outside the workspace")
        return Place(self._shown(absolute, real), real)

    def outside(self, path: str) -> Path | None:
        """Where `path` leads if that is in none of the roots, admitted or not."""
        real = self.real(path)
        return None if real is None or any(map(real.is_relative_to, self.roots)) else real

    def real(self, path: str) -> Path | None:
        """Where `path` leads, every symlink on the way resolved; None where it is no path."""
        try:
            return self._resolved(path)[1]
        except ToolError:
            return None

    def admit(self, real: Path) -> None:
        """The user has allowed this one path outside of the roots, and what a tool finds below."""
        self._admitted |= {real}

    def _resolved(self, path: str) -> tuple[Path, Path]:
        if not path or "\0" in path:
            raise ToolError("the path is empty" if not path else "the path holds a NUL character")
        absolute = Path(self.root, os.path.expanduser(path))
        return absolute, Path(os.path.realpath(absolute))

    def remember(self, place: Place, data: bytes) -> None:
        """The agent has seen `place` with exactly these bytes."""
        with self._lock:
            self._seen[place.real] = hashlib.sha256(data).digest()

    def forget(self, place: Place) -> None:
        """The agent has not seen `place` as it is now."""
        with self._lock:
            self._seen.pop(place.real, None)

    def was_seen(self, place: Place) -> bool:
        """Whether the agent has read or written this file in this session."""
        return place.real in self._seen

    def has_changed(self, place: Place, data: bytes) -> bool:
        """Whether the file was seen before, and with other bytes than `data`."""
        seen = self._seen.get(place.real)
        return seen is not None and seen != hashlib.sha256(data).digest()

    def read(self, place: Place) -> FileBytes:
        """The bytes of a regular file of at most READ_LIMIT bytes. Raises ToolError."""
        if self._stage is not None and (held := self._stage.read(place.real)) is not None:
            return held
        with self._parent(place) as parent:
            return _read_in(parent, place)

    def write(self, place: Place, data: bytes, *, base: FileBytes | None) -> None:
        """Replace (or, with base None, create) a file: all of it or nothing.

        `base` is what the new content was made from: the write is refused when the file is no
        longer that. Mode, owner, ACL and extended attributes of the old file are kept. Raises
        ToolError with the file untouched and no temporary file left.
        """
        _refuse_unwritable(place, base)
        if self._stage is not None:
            self._stage.write(place, data, base)
            self.remember(place, data)
            return
        with self._watched(place, base, data), self._parent(place, create=base is None) as parent:
            _replace_in(parent, place, data, base)
        self.remember(place, data)

    def remove(self, place: Place, *, base: FileBytes) -> None:
        """Remove a file that still is `base`. Raises ToolError with it untouched."""
        _refuse_unwritable(place, base)
        with self._watched(place, base, None), self._parent(place) as parent:
            _remove_in(parent, place, base)
        self.forget(place)

    def put_back(
        self,
        place: Place,
        data: bytes | None,
        *,
        base: FileBytes | None,
        mode: int | None = None,
        made: int = 0,
    ) -> None:
        """Undo: `data` in place of `base`, if the file still is that; None is no file.

        A file that comes back gets `mode`. With one that goes, so do the `made` directories above
        it, as far as they are empty. The agent has not seen the file then, and no watch is told.
        """
        _refuse_unwritable(place, base)
        if data is not None:
            with self._parent(place, create=base is None) as parent:
                _replace_in(parent, place, data, base, mode)
        elif base is not None:
            with self._parent(place) as parent:
                _remove_in(parent, place, base)
            with suppress(ToolError):  # no longer empty: somebody else uses it
                for directory in place.real.parents[:made]:
                    with self._parent(Place(place.shown, directory)) as parent:
                        os.rmdir(directory.name, dir_fd=parent)
        self.forget(place)

    def sweep(self, place: Place) -> None:
        """Remove what a killed process left beside `place` of a write that had not come to its
        end. Only where nobody is writing it."""
        left = re.compile(re.escape(_temporary(place.real.name, "")) + r"[0-9a-f]{12}\.ds4tmp")
        with suppress(MissingFileError), self._parent(place) as parent:
            for name in os.listdir(parent):
                if left.fullmatch(name):
                    os.unlink(name, dir_fd=parent)

    @contextmanager
    def _watched(self, place: Place, base: FileBytes | None, data: bytes | None) -> Iterator[None]:
        with self._changing:
            if self._watch is not None:
                old, mode = (None, None) if base is None else (base.data, base.status.st_mode)
                bits = None if mode is None else stat.S_IMODE(mode)
                self._watch.before_write(place.real, old, bits, data)
            yield
            if self._watch is not None:
                self._watch.after_write(place.real)

    def _root_of(self, real: Path) -> Path | None:
        # An admitted path is walked to from the top: no link may have appeared anywhere on its way.
        admitted = Path(real.anchor) if real in self._admitted else None
        return next((root for root in self.roots if real.is_relative_to(root)), admitted)

    def _shown(self, absolute: Path, real: Path) -> str:
        plain = Path(os.path.normpath(absolute))
        for path in (plain, real):
            if path.is_relative_to(self.root):
                return printable(str(path.relative_to(self.root)))
        return printable(str(real))

    @contextmanager
    def _parent(self, place: Place, *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory that holds `place`, walked to without following links.

        `place.real` was free of symlinks when it was resolved; one that has appeared since makes
        the walk fail instead of leading it elsewhere. Directories made for a write that then
        fails are removed again.
        """
        made: list[tuple[int, str]] = []
        opened: list[int] = []
        try:
            try:
                yield self._walk(place, create, opened, made)
            except BaseException:
                for parent, name in reversed(made):
                    with suppress(OSError):  # no longer empty: somebody else uses it
                        os.rmdir(name, dir_fd=parent)
                raise
        except OSError as error:
            raise failure(error, place, "write" if create else "open") from error
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _walk(
        self, place: Place, create: bool, opened: list[int], made: list[tuple[int, str]]
    ) -> int:
        root = self._root_of(place.real)
        assert root is not None
        if place.real == root:
            raise ToolError(f"{place.shown} is a directory")
        opened.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in place.real.parent.relative_to(root).parts:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=opened[-1])
                    made.append((opened[-1], part))
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened.append(os.open(part, flags, dir_fd=opened[-1]))
        for parent, _ in made:
            os.fsync(parent)
        return opened[-1]


def printable(text: str) -> str:
    """A name on one line: control characters escaped, so that no name can forge a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def failure(error: OSError, place: Place, what: str) -> ToolError:
    """The one line for a failed system call on `place`."""
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"{place.shown} does not exist")
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return ToolError(f"{place.shown} became a symbolic link or is a loop of links")
    if isinstance(error, NotADirectoryError):
        return ToolError(f"cannot {what} {place.shown}: a part of the path is not a directory")
    reason = (error.strerror or str(error)).lower()
    return ToolError(f"cannot {what} {place.shown}: {reason}")


def _read_in(parent: int, place: Place) -> FileBytes:
    # O_NONBLOCK: opening a named pipe must not wait for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(place.real.name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket cannot be opened
            raise ToolError(f"{place.shown} is a socket or device, not a file") from error
        raise failure(error, place, "read") from error
    try:
        status = os.fstat(descriptor)
        refuse_special(place, status)
        try:
            return FileBytes(_read_all(descriptor, place), status)
        except OSError as error:
            raise failure(error, place, "read") from error
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, place: Place) -> bytes:
    chunks: list[bytes] = []
    total = 0
    while chunk := os.read(descriptor, 1 << 20):
        total += len(chunk)
        if total > READ_LIMIT:  # the size of the inode can lie: a file of /proc has none
            limit = READ_LIMIT // (1024 * 1024)
            raise ToolError(
                f"{place.shown} is larger than {limit} MiB; use search, or bash with head or sed"
            )
        chunks.append(chunk)
    return b"".join(chunks)


def refuse_special(place: Place, status: os.stat_result) -> None:
    """Raise ToolError for what is no regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise ToolError(f"{place.shown} is a directory; use list")
    if not stat.S_ISREG(status.st_mode):
        kind = SPECIAL.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise ToolError(f"{place.shown} is {kind}, not a file")


def _refuse_unwritable(place: Place, base: FileBytes | None) -> None:
    # `.GIT` is `.git` where names have no case; git~1 is its short name on FAT and NTFS.
    if any(part.casefold() in (".git", "git~1") for part in place.real.parts):
        raise ToolError(f"{place.shown} belongs to git's own files; use the git tool")
    if base is None:
        return
    if not base.status.st_mode & 0o222:
        raise ToolError(f"{place.shown} is read-only; change its mode first")
    if base.status.st_nlink > 1:
        # Replacing it would split the names; a crash while writing into it would tear it.
        links = base.status.st_nlink
        raise ToolError(f"{place.shown} has {links} hard links; change it with bash")


def _remove_in(parent: int, place: Place, base: FileBytes) -> None:
    _check_base(parent, place, base)
    try:
        os.unlink(place.real.name, dir_fd=parent)
    except OSError as error:
        raise failure(error, place, "remove") from error
    os.fsync(parent)


def _replace_in(
    parent: int, place: Place, data: bytes, base: FileBytes | None, mode: int | None = None
) -> None:
    name = place.real.name
    temporary = _temporary(name, f"{secrets.token_hex(6)}.ds4tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = -1
    try:
        # A new file gets the user's umask; one that replaces another stays private until it is it.
        descriptor = os.open(temporary, flags, 0o666 if base is None else 0o600, dir_fd=parent)
        _write_all(descriptor, data)
        if base is not None:
            _keep_attributes(parent, place, descriptor, base.status)
        elif mode is not None:
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        _check_base(parent, place, base)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException as error:
        if descriptor >= 0:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
        if isinstance(error, OSError):
            raise failure(error, place, "write") from error
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    os.fsync(parent)


def _temporary(name: str, end: str) -> str:
    return f".{name[:60]}.{end}"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _keep_attributes(parent: int, place: Place, descriptor: int, status: os.stat_result) -> None:
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        except PermissionError as error:
            raise ToolError(
                f"{place.shown} belongs to another user or group; writing would change that"
            ) from error
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    if not hasattr(os, "listxattr"):
        return
    old = os.open(place.real.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        with suppress(OSError):  # a file system without extended attributes has none to keep
            for attribute in os.listxattr(old):
                if attribute.startswith(KEPT_ATTRIBUTES):
                    os.setxattr(descriptor, attribute, os.getxattr(old, attribute))
    finally:
        os.close(old)


def _check_base(parent: int, place: Place, base: FileBytes | None) -> None:
    """Right before the rename: the file still is what the new content was made from."""
    if base is None:
        try:
            os.stat(place.real.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        raise ToolError(f"{place.shown} was created by someone else just now; read it first")
    try:
        now = _read_in(parent, place).data
    except MissingFileError:
        raise ToolError(f"{place.shown} was removed by someone else just now") from None
    if now != base.data:
        raise ToolError(f"{place.shown} was changed by someone else just now; read it again")
