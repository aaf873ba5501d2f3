"""The ledger of a batch: what became of each item, so that a killed batch repeats nothing.

In: records, each on the disk itself before anything follows from it. Out: the items, and the state
of each. On disk, private, in `batches/<id>/`:

    lock             who is writing (see `sessions.lock`)
    ledger.jsonl     one record a line, appended
    blobs/<sha256>   contents of files before and after, until the batch is finished

    {"type": "batch", "version", "id", "directory", "arguments", "prompt"}
    {"type": "item", "item", "path", "exists", "fields"}     every item, in order
    {"type": "begun"}                                        before it there is no batch
    {"type": "example", "item", "fingerprint", "ids"}        the worked example, of that model
    {"type": "state", "item", "state", …}
        running                                  the model works on it
        placed   files, since                    its files may be in place now, for a command that
                                                 began then; no files and no time: no more
        edited   files, diff_sha256, tokens, …   the model is done; files may be in place
        refused  told, and the same              its check failed and said `told`; a second fork of
                                                 the item, which reads it, tries once more
        changed, unchanged, failed               the end of it, with its figures
    {"type": "commit", "commit"}                 of all items
    {"type": "finished", "exit_code"}

A file of `files` is {"path", "before", "after", "made"}: hashes, null for no file; `made` counts
the directories made for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ds4_agent.agent.batch.items import Item
from ds4_agent.agent.errors import OutputError, UsageError
from ds4_agent.sessions.errors import SessionInUseError
from ds4_agent.sessions.lines import read_lines
from ds4_agent.sessions.lock import SessionLock
from ds4_agent.sessions.private import make_private, sync, sync_directory

__all__ = ["ENDS", "Entry", "Ledger", "Saved", "read_ledger"]

ENDS = ("changed", "unchanged", "failed")
VERSION = 1
FILE, BLOBS = "ledger.jsonl", "blobs"
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of an item: its last state, that record, the files that may be in place
    although it is not at its end, and since when a command is under way (0: there is none)."""

    state: str = "pending"
    record: Record = field(default_factory=dict)
    placed: tuple[Record, ...] = ()
    since: float = 0.0

    @property
    def is_ended(self) -> bool:
        return self.state in ENDS


@dataclass(frozen=True)
class Saved:
    """A ledger as it was read."""

    folder: Path
    header: Record
    items: tuple[Item, ...]
    entries: Mapping[int, Entry]
    example: Record | None = None
    commit: str = ""
    is_finished: bool = False

    @property
    def id(self) -> str:
        return self.folder.name

    def entry(self, number: int) -> Entry:
        return self.entries.get(number, Entry())


def read_ledger(folder: Path) -> Saved | None:
    """The ledger in `folder`; None where no batch has begun there. Raises OSError."""
    records = read_lines(folder / FILE).records
    if not any(record.get("type") == "begun" for record in records):
        return None
    header = next((r for r in records if r.get("type") == "batch"), None)
    if header is None or header.get("version") != VERSION:
        return None
    items = tuple(
        Item(r["item"], r["path"], r["exists"], r["fields"])
        for r in records
        if r.get("type") == "item"
    )
    saved = Saved(folder, header, items, {})
    entries: dict[int, Entry] = {}
    for record in records:
        match record.get("type"):
            case "state":
                number = record["item"]
                entries[number] = _next(entries.get(number, Entry()), record)
            case "example":
                saved = replace(saved, example=record)
            case "commit":
                saved = replace(saved, commit=str(record["commit"]))
            case "finished":
                saved = replace(saved, is_finished=True)
            case _:
                pass
    return replace(saved, entries=entries)


def _next(entry: Entry, record: Record) -> Entry:
    state = str(record["state"])
    if state == "placed":
        since = float(record.get("since", 0.0))
        return replace(entry, placed=tuple(record["files"]), since=since)
    placed = tuple(record["files"]) if state == "edited" else ()
    return Entry(state, record, entry.placed if state == "running" else placed)


class Ledger:
    """The ledger of the batch that runs. Every method may be called from any thread; each raises
    OutputError where the disk does not take it: then nothing must follow."""

    def __init__(self, folder: Path) -> None:
        """Nothing is created before `begin` or `take_up`."""
        self.folder = folder
        self._lock = SessionLock(folder)
        self._file = -1
        self._writing = threading.Lock()

    def begin(self, header: Record, items: Iterable[Item]) -> None:
        """Write down what is to be done, all of it at once."""
        records: list[Record] = [{"type": "batch", "version": VERSION, **header}]
        records += [
            {
                "type": "item",
                "item": item.number,
                "path": item.path,
                "exists": item.exists,
                "fields": item.fields,
            }
            for item in items
        ]
        self._open()
        self._write([*records, {"type": "begun"}])

    def take_up(self) -> None:
        """Go on with the ledger there is. Raises UsageError while another process writes it."""
        self._open()

    def add(self, record: Record, *, durable: bool = True) -> None:
        """Append a record; it is on the disk itself when this returns, unless nothing follows from
        it."""
        self._write([record], durable=durable)

    def keep(self, data: bytes) -> str:
        """Keep a content on the disk itself; its name."""
        name = hashlib.sha256(data).hexdigest()
        blobs = self.folder / BLOBS
        path, temporary = blobs / name, blobs / f".{name}.{secrets.token_hex(4)}"
        try:
            if path.exists():
                return name
            make_private(blobs)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                descriptor = os.open(temporary, flags, 0o600)
                try:
                    _write_all(descriptor, data)
                    sync(descriptor)
                finally:
                    os.close(descriptor)
                temporary.rename(path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_directory(blobs)
        except OSError as error:
            raise self._failure(error) from error
        return name

    def content(self, name: str) -> bytes:
        """A kept content. Raises OutputError where it is gone or damaged."""
        try:
            data = (self.folder / BLOBS / name).read_bytes()
        except OSError as error:
            raise self._failure(error) from error
        if hashlib.sha256(data).hexdigest() != name:
            raise OutputError(f"a content kept in {self.folder / BLOBS} is damaged: {name[:12]}")
        return data

    def finish(self, exit_code: int) -> None:
        """The batch is over: there is nothing to go on with, and no content to keep."""
        self.add({"type": "finished", "exit_code": exit_code})
        blobs = self.folder / BLOBS
        try:
            for blob in blobs.iterdir() if blobs.is_dir() else ():
                blob.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Safe to call twice."""
        with self._writing:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
        self._lock.release()

    def _open(self) -> None:
        try:
            self._lock.acquire()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self.folder / FILE, flags, 0o600)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")  # what a power cut left of a line stays a damaged one
            sync_directory(self.folder)
        except SessionInUseError as error:
            who = f" (process {error.pid})" if error.pid else ""
            raise UsageError(f"batch {self.folder.name} is under way{who}") from error
        except OSError as error:
            raise self._failure(error) from error

    def _write(self, records: Iterable[Record], *, durable: bool = True) -> None:
        text = "".join(
            json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
            for record in records
        )
        data = text.encode("utf-8", "backslashreplace")
        with self._writing:
            try:
                before = os.fstat(self._file).st_size
                try:
                    _write_all(self._file, data)
                except OSError:
                    os.ftruncate(self._file, before)  # whole lines only
                    raise
                if durable:
                    sync(self._file)
            except OSError as error:
                raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        reason = error.strerror or str(error)
        return OutputError(f"the batch cannot be written down: {self.folder}: {reason}")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
