"""A store directory: immutable files under `folder/name`, written durably and verified when read.

In: bytes and names; out: the same bytes, or nothing. It knows nothing of models. What the disk does
never raises: what cannot be written is not kept, what cannot be read is a miss, and a file that is
not what was stored is moved to `bad/` on sight. Any number of processes may share a directory.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.engine.kvstore.durable import (
    BusyError,
    locked,
    make_private,
    open_regular,
    sync_directory,
    sync_file,
)
from ds4_agent.engine.kvstore.fileformat import DamagedError, read_payload, write_payload

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Disk"]

LOCK = "lock"
TEMPS = "tmp"
BAD = "bad"
RETRY = 60.0  # seconds after a failure in which nothing is written
WAIT = 5.0  # seconds to wait for another process that writes
_SIMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


class Disk:
    """One store directory. Every method is thread-safe and raises nothing that the disk does."""

    def __init__(
        self, directory: Path, budget: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Creates nothing before the first `put`. `clock` gives seconds, for retries only."""
        self.failure = ""  # one line for the user while nothing is kept
        self._directory = directory
        self._budget = budget
        self._clock = clock
        self._retry_at = 0.0
        self._wait = WAIT
        self._writing = threading.Lock()
        self._is_closed = False

    def names(self, folder: str) -> list[str]:
        """The files of a folder, in no order: one reading of the directory, nothing is opened."""
        try:
            with os.scandir(self._folder(folder)) as entries:
                return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except OSError:
            return []

    def has(self, folder: str, name: str) -> bool:
        """Whether a file is there, not whether it is sound."""
        return _is_regular(self._path(folder, name))

    def get(self, folder: str, name: str) -> memoryview | None:
        """The whole payload, verified, in memory of its own; None where it cannot be had."""
        path = self._path(folder, name)
        try:
            descriptor = open_regular(path)
        except OSError as error:
            if os.path.lexists(path) and not _is_regular(path):
                self._set_aside(path, None, str(error))
            return None
        try:
            return read_payload(descriptor, f"{folder}/{name}")
        except (DamagedError, OSError) as error:
            self._set_aside(path, descriptor, str(error))
        except MemoryError:
            pass
        finally:
            os.close(descriptor)
        return None

    def put(self, folder: str, name: str, parts: Iterable[Buffer]) -> int | None:
        """Store a payload, given in parts that are taken one at a time.

        Returns the bytes written: 0 where the file was there already, and `parts` is not touched
        then; None where it could not be kept. The file is on the disk when this returns.
        """
        path = self._path(folder, name)
        with self._writing:
            if self._is_closed or (self.failure and self._clock() < self._retry_at):
                return None
            try:
                make_private(self._directory)
                with locked(self._directory / LOCK, self._wait):
                    self._wait = WAIT
                    written = self._put(path, f"{folder}/{name}", parts)
            except BusyError:
                self._wait = 0.0  # it may be stopped: the next one is not waited for
                return None
            except OSError as error:
                reason = error.strerror or error
                self.failure = f"the KV cache is off: cannot write {self._directory}: {reason}"
                self._retry_at = self._clock() + RETRY
                return None
            self.failure = ""
            return written

    def touch(self, folder: str, name: str) -> None:
        """Used now: what was used longest ago goes first."""
        with suppress(OSError):
            os.utime(self._path(folder, name), follow_symlinks=False)

    def hold(self, folder: str, name: str) -> None:
        """Keep a file from being deleted by any process until `close`."""

    def close(self) -> None:
        """Let go of what is held. Nothing is stored afterwards; reading goes on."""
        with self._writing:
            self._is_closed = True

    def _put(self, path: Path, label: str, parts: Iterable[Buffer]) -> int:
        if _is_regular(path):
            return 0
        temps = self._directory / TEMPS
        make_private(temps)
        make_private(path.parent)
        temporary = temps / secrets.token_hex(8)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        try:
            written = write_payload(descriptor, label, parts, lambda _: None)
            sync_file(descriptor)
            os.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        sync_directory(path.parent)
        return written

    def _set_aside(self, path: Path, descriptor: int | None, reason: str) -> None:
        with suppress(OSError):
            bad = self._directory / BAD
            make_private(bad)
            os.rename(path, bad / f"{path.name}.{secrets.token_hex(4)}")

    def _folder(self, folder: str) -> Path:
        parts = folder.split("/")
        if not (0 < len(parts) < 3 and all(map(_SIMPLE.match, parts))) or parts[0] in (TEMPS, BAD):
            raise ValueError(f"no folder of a store: {folder!r}")
        return self._directory.joinpath(*parts)

    def _path(self, folder: str, name: str) -> Path:
        if not _SIMPLE.match(name):
            raise ValueError(f"no name of a stored file: {name!r}")
        return self._folder(folder) / name


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
