"""A store directory: immutable files under `folder/name`, written durably and verified when read.

In: bytes and names; out: the same bytes, or nothing. It knows nothing of models. What the disk does
never raises: what cannot be written is not kept, what cannot be read is a miss, and a file that is
not what was stored is moved to `bad/` on sight. Any number of processes may share a directory.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.engine.kvstore.account import Account, FullError
from ds4_agent.engine.kvstore.durable import (
    BusyError,
    locked,
    make_private,
    sync_directory,
    sync_file,
)
from ds4_agent.engine.kvstore.eviction import Space, disk_space
from ds4_agent.engine.kvstore.fileformat import Plan, write_payload
from ds4_agent.engine.kvstore.holds import Holds
from ds4_agent.engine.kvstore.layout import (
    LOCK,
    PLACES,
    ROWS,
    TEMPS,
    is_regular,
    labelled,
    located,
    needed_rows,
    read_header_line,
)
from ds4_agent.engine.kvstore.reading import clear_the_way, fill_stored, read_stored

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Disk"]

RETRY = 60.0  # seconds after a failure in which nothing is written
WAIT = 5.0  # seconds to wait for another process that writes
MOST_HELD = 64  # files, each a descriptor; macOS lets a process have 256
_LONGEST_LINE = 1 << 20


class Disk:
    """One store directory. Every method is thread-safe and raises nothing that the disk does.

    `budget` is the bytes that all its files may take; what is used least is deleted for what is
    new, and the last 5 % of the disk are never used.
    """

    def __init__(
        self,
        directory: Path,
        budget: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        space: Callable[[Path], Space] = disk_space,
    ) -> None:
        """Creates nothing before the first `put`. `clock` gives seconds, for retries only."""
        self.failure = ""  # one line for the user while nothing is kept
        self.damaged = 0  # files that were set aside
        self._directory = directory
        self._clock = clock
        self._retry_at = 0.0
        self._wait = WAIT
        self._writing = threading.Lock()
        self._account = Account(directory, budget, space)
        self._held = Holds(MOST_HELD)
        self._new_rows = Holds(MOST_HELD)  # that no place needs yet
        self._is_closed = False

    def names(self, folder: str) -> list[str]:
        """The files of a folder, in no order: one reading of the directory, nothing is opened."""
        try:
            with os.scandir(located(self._directory, folder)) as entries:
                return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except OSError:
            return []

    def has(self, folder: str, name: str) -> bool:
        """Whether a file is there, and all the rows that a place needs; not whether it is sound."""
        label = labelled(folder, name)
        is_place = folder.rpartition("/")[2] == PLACES
        return is_regular(f"{self._directory}/{label}") and (not is_place or self._has_rows(label))

    def get(self, folder: str, name: str) -> memoryview | None:
        """The whole payload, verified, in memory of its own; None where it cannot be had."""
        payload, reason = read_stored(self._directory, labelled(folder, name))
        self.damaged += bool(reason)
        return payload

    def fill(self, folder: str, name: str, plan: Plan) -> bool:
        """Read a payload that begins with a line to where `plan` (see `fileformat`) wants it.

        Whether all of it stands there, verified; if not, what does is not to be used.
        """
        is_filled, reason = fill_stored(self._directory, labelled(folder, name), plan)
        self.damaged += bool(reason)
        return is_filled

    def put(self, folder: str, name: str, parts: Iterable[Buffer]) -> int | None:
        """Store a payload, given in parts that are taken one at a time.

        Returns the bytes written: 0 where the file was there already, and `parts` is not used up
        then; None where it could not be kept, as a place is not without the rows it needs. The file
        is on the disk when this returns. Raises what `parts` raises, with nothing stored.
        """
        path, label = located(self._directory, folder, name), f"{folder}/{name}"
        with self._writing:
            if self._is_closed or (self.failure and self._clock() < self._retry_at):
                return None
            try:
                make_private(self._directory)
                with locked(self._directory / LOCK, self._wait) as lock:
                    self._wait = WAIT
                    written = self._put(lock, path, label, parts)
            except BusyError:
                self._wait = 0.0  # it may be stopped: the next time it is not waited for
                return None
            except FullError as error:
                self._fail(str(error))
                return None
            except OSError as error:
                self._fail(f"cannot write {self._directory}: {error.strerror or error}")
                return None
            if written:
                self.failure = ""
            return written

    def touch(self, folder: str, name: str) -> None:
        """Used now: what was used longest ago is deleted first."""
        now = time.time_ns()  # the kernel's own "now" stands still for milliseconds
        with suppress(OSError):
            path = located(self._directory, folder, name)
            os.utime(path, ns=(now, now), follow_symlinks=False)

    def hold(self, folder: str, name: str) -> None:
        """Keep a file from being deleted, by any process, until `close`; of a place, its rows too.

        Only the last 64 are held.
        """
        self._held.add(located(self._directory, folder, name))

    def close(self) -> None:
        """Let go of what is held. Nothing is stored afterwards; reading goes on."""
        with self._writing:
            self._is_closed = True
            self._held.close()
            self._new_rows.close()

    def _put(self, lock: int, path: Path, label: str, parts: Iterable[Buffer]) -> int | None:
        self.damaged += bool(clear_the_way(self._directory, label))
        is_there = is_regular(path)
        if path.parent.name != PLACES:
            written = 0 if is_there else self._write(lock, path, label, parts)
            if path.parent.name == ROWS:
                self._new_rows.add(path)
            return written
        if is_there and self._has_rows(label):
            return 0
        # A place is stored only with all its rows; one that lacks some is written again.
        line, parts = _first_line(parts)
        rows = self._rows(label, line)
        if not all(map(is_regular, rows)):
            return None
        written = self._write(lock, path, label, parts)
        for row in rows:
            self._new_rows.release(row)
        return written

    def _has_rows(self, label: str) -> bool:
        line = read_header_line(self._directory, label)
        return bool(line) and all(map(is_regular, self._rows(label, line)))

    def _rows(self, label: str, line: bytes) -> list[Path]:
        return [self._directory / row for row in needed_rows(label, line)]

    def _write(self, lock: int, path: Path, label: str, parts: Iterable[Buffer]) -> int:
        """The file whole under its name, or nothing at all."""
        temporary = self._directory / TEMPS / secrets.token_hex(8)
        make_private(temporary.parent)
        self._account.begin(lock, f"{TEMPS}/{temporary.name}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        is_kept = False
        try:
            written = write_payload(descriptor, label, parts, self._account.take)
            sync_file(descriptor)
            make_private(path.parent)  # only now: making room removes folders that are empty
            os.rename(temporary, path)
            is_kept = True
            sync_directory(path.parent)
            return written
        finally:
            os.close(descriptor)
            self._account.end(is_kept=is_kept)
            if not is_kept:
                with suppress(OSError):
                    os.unlink(temporary)

    def _fail(self, reason: str) -> None:
        self.failure = f"the KV cache is off: {reason}"
        self._retry_at = self._clock() + RETRY


def _first_line(parts: Iterable[Buffer]) -> tuple[bytes, Iterable[Buffer]]:
    """The payload's first line, of what is needed to see it, and all of the parts again."""
    line, taken, rest = b"", [], iter(parts)
    for part in rest:
        taken.append(part)
        line += bytes(memoryview(part)[:_LONGEST_LINE])
        if b"\n" in line or len(line) > _LONGEST_LINE:
            break
    return line.partition(b"\n")[0], chain(taken, rest)
