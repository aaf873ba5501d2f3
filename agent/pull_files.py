"""Brings the files of a repository into a directory: what is there already is checked, the rest is
downloaded, several at a time, and checked as well.

In: a hub, a listing and the files wanted of it. Out: a complete directory, or one that says that it
is not (`pulled.py`) and that a later run goes on from. A file has its name only once its hash is
that of the hub; until then it is `.NAME.HASH.part`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from ds4_agent.agent.errors import PullError, UsageError
from ds4_agent.agent.hub import Hub, Listing, RemoteFile, Stopped
from ds4_agent.agent.pulled import Repository, read_pulled, write_pulled
from ds4_agent.agent.sizes import shown_size

__all__ = ["Job", "absent", "bytes_to_come", "check_space", "checked", "locked", "pull"]

AT_ONCE = 4  # files: one connection rarely fills a line
BLOCK = 4 << 20
RESERVE = 256 << 20  # bytes of the disk that are left alone
LISTEN = 0.1  # seconds between two looks at the threads
GRACE = 0.5  # seconds a thread has to end once another failed
# What a file system answers that knows no locks: there is nothing to hold then.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EISDIR, errno.EBADF)


@dataclass(frozen=True)
class Job:
    """What is pulled, from where and into which directory."""

    hub: Hub
    listing: Listing
    repository: Repository
    files: tuple[RemoteFile, ...]
    directory: Path

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """The directory, made if need be, for one pull at a time. Raises PullError and UsageError."""
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError as error:
        raise PullError(f"cannot write {directory}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another process pulls into {directory} already") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it holds something now
                directory.rmdir()
        os.close(descriptor)


def check_space(job: Job) -> None:
    """Raise PullError, with the figures, where the disk has no room for what is not there yet."""
    missing = bytes_to_come(job, absent(job))
    free = shutil.disk_usage(_existing(job.directory)).free
    if missing + RESERVE > free:
        raise PullError(
            f"{job.repository} needs {shown_size(missing)} more and the disk of {job.directory} "
            f"has {shown_size(free)} free, of which {shown_size(RESERVE)} stay so: make room, or "
            "name a directory on another disk"
        )


def bytes_to_come(job: Job, missing: Sequence[RemoteFile]) -> int:
    """What has to be downloaded for some files, their parts taken into account."""
    return sum(max(0, file.size - max(0, _size(_part(job.directory, file)))) for file in missing)


def absent(job: Job) -> list[RemoteFile]:
    """The files that are not there, by their sizes alone."""
    return [file for file in job.files if _size(job.directory / file.name) != file.size]


def checked(job: Job, on_bytes: Callable[[int], None]) -> list[RemoteFile]:
    """The files that are not there, or not as the hub has them; changes nothing. `on_bytes` is told
    how many bytes were read. Raises UsageError where the directory is somebody else's."""
    before = read_pulled(job.directory)
    if before is not None and before.repository != job.repository:
        raise UsageError(
            f"{job.directory} holds {before.repository}; name another directory for "
            f"{job.repository}"
        )
    missing = []
    for file in job.files:
        path = job.directory / file.name
        if path.exists() and _is_sound(path, file, on_bytes):
            continue
        if path.exists() and before is None:
            raise UsageError(
                f"{path} is there and is not the file {job.repository} has; name another directory"
            )
        missing.append(file)
    return missing


def pull(
    job: Job,
    missing: Sequence[RemoteFile],
    on_bytes: Callable[[int], None],
    on_tick: Callable[[], None],
) -> None:
    """Download `missing` and say that the directory is complete. `on_bytes` is told of bytes that
    are there, from several threads; `on_tick` is called now and then, from this one. Raises
    PullError, OutputError; whatever ends it, what came is kept."""
    if missing:
        write_pulled(job.directory, job.repository, job.listing.commit, job.files, done=False)
        _sweep(job, missing)
        _fetch_all(job, missing, on_bytes, on_tick)
    write_pulled(job.directory, job.repository, job.listing.commit, job.files, done=True)


def _fetch_all(
    job: Job,
    missing: Sequence[RemoteFile],
    on_bytes: Callable[[int], None],
    on_tick: Callable[[], None],
) -> None:
    waiting, failures, stop = deque(missing), list[Exception](), threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                _fetch(job, waiting.popleft(), on_bytes, stop)
            except (IndexError, Stopped):  # nothing waits any more, or an interrupt
                return
            except Exception as error:
                failures.append(error)
                stop.set()

    # Daemons: an interrupt need not wait for a server that does not answer, and what they have
    # written is all they have to lose.
    threads = [threading.Thread(target=work, daemon=True) for _ in missing[:AT_ONCE]]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(LISTEN)
                on_tick()
    finally:
        stop.set()
    if failures:
        for thread in threads:
            thread.join(GRACE)
        raise failures[0]


def _fetch(
    job: Job, file: RemoteFile, on_bytes: Callable[[int], None], stop: threading.Event
) -> None:
    """One file, to its end, checked and under its name."""
    path = _part(job.directory, file)
    try:
        with FileIO(path, "a") as opened:
            part = _Written(opened, path, on_bytes)
            job.hub.fetch(job.listing, file, part, stop)
            os.fsync(opened.fileno())
        if not _is_sound(path, file, lambda _: None):
            path.unlink()
            on_bytes(-part.size)
            raise PullError(
                f"{file.name} came with another hash than {job.listing.repository} gives for it "
                "and was thrown away"
            )
        path.replace(job.directory / file.name)
    except OSError as error:
        raise PullError(f"cannot write {path}: {error.strerror or error}") from error


class _Written:
    """A part on disk, appended to without a buffer: what was written survives a kill."""

    def __init__(self, opened: FileIO, path: Path, on_bytes: Callable[[int], None]) -> None:
        self._file, self._path, self._on_bytes = opened, path, on_bytes
        self.size = opened.seek(0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        """Append. Raises PullError: an OSError would be taken for one of the connection."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise PullError(f"cannot write {self._path}: {error.strerror or error}") from error
        self.size += len(data)
        self._on_bytes(len(data))

    def restart(self) -> None:
        self._file.truncate(0)
        self._on_bytes(-self.size)
        self.size = 0


def _is_sound(path: Path, file: RemoteFile, on_bytes: Callable[[int], None]) -> bool:
    """Whether a file has the size and the hash of the hub's."""
    if _size(path) != file.size:
        return False
    if file.sha256:
        digest = hashlib.sha256()
    else:  # as git names what it keeps
        digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    try:
        with path.open("rb") as opened:
            while block := opened.read(BLOCK):
                digest.update(block)
                on_bytes(len(block))
    except OSError as error:
        raise PullError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest() == (file.sha256 or file.git_id)


def _sweep(job: Job, missing: Sequence[RemoteFile]) -> None:
    """Remove what another commit left: parts of other files, and files that are to come anew."""
    keep = {_part(job.directory, file) for file in missing}
    gone = [path for path in job.directory.glob(".*.part") if path not in keep]
    for path in (*gone, *(job.directory / file.name for file in missing)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise PullError(f"cannot remove {path}: {error.strerror or error}") from error


def _part(directory: Path, file: RemoteFile) -> Path:
    return directory / f".{file.name}.{(file.sha256 or file.git_id)[:16]}.part"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
