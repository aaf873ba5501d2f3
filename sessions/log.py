"""What survives of a session: an append-only event log and token log, one JSON record a line.

In: plain records and token ids. Out: `events.jsonl` and `tokens.jsonl` in the session's directory,
0600 in a directory of 0700. Every record is one O_APPEND write, so a killed process leaves whole
lines, and a durable one outlives a power cut. One process at a time writes them (`lock`). Never
ends the session: on the first failure it says so once and writes no more.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ds4_agent.sessions.errors import SessionInUseError
from ds4_agent.sessions.lock import SessionLock
from ds4_agent.sessions.private import sync, sync_directory

__all__ = ["SessionLog", "new_session_id"]

EVENTS, TOKENS = "events.jsonl", "tokens.jsonl"
TOKENS_PER_RECORD = 64  # sampled ids are written at least this often


def new_session_id(now: datetime) -> str:
    """A name that sorts by time and is unique: `20261122-070301-9f3a1c`."""
    return f"{now:%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


class SessionLog:
    """The two logs of one session. Every method is safe to call after a failure."""

    def __init__(self, directory: Path) -> None:
        """Nothing is created before the first record, which takes the lock if nobody did yet."""
        self.directory = directory
        self.lock = SessionLock(directory)
        self.failure = ""  # one line once something could not be written
        self._files: dict[str, int] = {}
        self._sampled: list[int] = []
        self._kind = ""
        self._at = 0  # of the first of them in its branch
        self._unsynced = False  # ids were written that may not be on the disk itself

    def event(self, record: Mapping[str, Any], *, durable: bool = False) -> None:
        """Append an event. `durable`: it and all before it, ids too, are on the disk itself before
        this returns."""
        if durable:
            self.flush()
            self._sync_tokens()
        self._append(EVENTS, record, durable=durable)

    def tokens(self, kind: str, ids: Sequence[int], at: int) -> None:
        """Append ids of one kind (control, template, data, sampled or forced), the first of them
        the `at`-th of its branch.

        Sampled ids come one at a time and are gathered; `flush` writes what is left.
        """
        if kind != self._kind or len(self._sampled) >= TOKENS_PER_RECORD:
            self.flush()
            self._kind = kind
        if not self._sampled:
            self._at = at
        self._sampled.extend(ids)

    def branch(self, record: Mapping[str, Any]) -> None:
        """Append to the token log what begins or takes up a branch; see `saved`."""
        self.flush()
        self._write_tokens(record)

    def flush(self) -> None:
        """Write the ids gathered so far."""
        if self._sampled:
            self._write_tokens({"kind": self._kind, "at": self._at, "ids": self._sampled})
            self._sampled = []

    def close(self) -> None:
        """Write what is left and close. Safe to call twice."""
        self.flush()
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}
        self.lock.release()

    def _write_tokens(self, record: Mapping[str, Any]) -> None:
        self._unsynced = True
        self._append(TOKENS, record)

    def _sync_tokens(self) -> None:
        if self._unsynced and TOKENS in self._files and not self.failure:
            try:
                sync(self._files[TOKENS])
            except OSError as error:
                reason = error.strerror or str(error)
                self.failure = f"this session is not saved: {self.directory}: {reason}"
            self._unsynced = False

    def _append(self, name: str, record: Mapping[str, Any], *, durable: bool = False) -> None:
        if self.failure:
            return
        # backslashreplace writes a lone surrogate (a file name that is not UTF-8) as JSON does.
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
        data = line.encode("utf-8", "backslashreplace")
        try:
            descriptor = self._descriptor(name)
            _write_whole(descriptor, data)
            if durable:
                sync(descriptor)
        except SessionInUseError as error:
            self.failure = f"this session is not saved: {error}"
        except OSError as error:
            reason = error.strerror or str(error)
            self.failure = f"this session is not saved: {self.directory}: {reason}"

    def _descriptor(self, name: str) -> int:
        if name not in self._files:
            self.lock.acquire()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._files[name] = os.open(self.directory / name, flags, 0o600)
            _end_torn_line(self._files[name])
            sync_directory(self.directory)
        return self._files[name]


def _end_torn_line(descriptor: int) -> None:
    """What a power cut left of a last line stays, as a damaged line of its own."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        _write_whole(descriptor, b"\n")


def _write_whole(descriptor: int, line: bytes) -> None:
    written = os.write(descriptor, line)
    if written != len(line):  # the disk filled up in the middle: leave whole lines only
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
