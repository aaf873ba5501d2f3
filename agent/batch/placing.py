"""An item's changes in the files themselves: for a while, or for good.

In: an item's stage and the ledger. Out: files that hold the changes while a command looks at them,
and what that command made of them. Whatever happens, the ledger knew of it before, so that what a
killed batch left in place is taken out when it is resumed.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.batch.bounds import Bounds
from ds4_agent.agent.batch.ledger import Entry, Ledger
from ds4_agent.agent.batch.stage import Change, ItemStage
from ds4_agent.agent.batch.tree_lock import TreeLock
from ds4_agent.agent.errors import OutputError
from ds4_agent.sessions.snapshots import digest

if TYPE_CHECKING:
    from ds4_agent.tools.workspace import FileBytes, Place, Workspace

__all__ = ["Tree", "files_of", "restored_changes"]


@dataclass(frozen=True)
class Tree:
    """The files of the directory, which one item at a time may have changes in. `failures`: files
    that could not be put back; then no item may come to its end, so that `--resume` does it."""

    workspace: Workspace  # of the files themselves
    lock: TreeLock
    ledger: Ledger
    stop: threading.Event
    bounds: Bounds
    settle: Callable[[], None] = lambda: None  # waits for commands that were asked to end
    failures: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raises OutputError where a file could not be put back."""
        if self.failures:
            raise OutputError(self.failures[0])

    @contextmanager
    def with_changes(
        self, number: int, stage: ItemStage, own: Path | None, *, only_reads: bool
    ) -> Iterator[None]:
        """A command of the model runs in here: it sees the changes, and what it makes of those
        files and of the item's own becomes part of them. What it does beyond is undone, and
        `stage.failure` says so. Raises ToolError, OutputError and StoppedError."""
        with self.lock.held(self.stop):
            if only_reads:
                with self._in_place(number, stage, own, 0.0):
                    yield
                return
            try:
                bounds, place = self.bounds.around(number, stage), self._in_place
                with bounds, place(number, stage, own, time.time()):
                    yield
            except OutputError as error:
                self.failures.append(str(error))
                stage.failure = str(error)
                raise

    @contextmanager
    def _in_place(
        self, number: int, stage: ItemStage, own: Path | None, since: float
    ) -> Iterator[None]:
        """`since`: when a command began that may change files; 0 for none."""
        looked_at = self._looked_at(stage, own)
        state = {"type": "state", "item": number, "state": "placed"}
        is_told = bool(stage.changes or since)
        if is_told:
            files = files_of(stage.changes, self.workspace, self.ledger)
            self.ledger.add({**state, "files": files, "since": since})
        placed = self.put(stage.changes)
        try:
            yield
        finally:
            self.settle()
            for change in placed:
                looked_at[change.place.real] = change
            for change in looked_at.values():
                self._take_back(change, stage)
            if is_told:
                self.ledger.add({**state, "files": []}, durable=False)

    def put(self, changes: Sequence[Change]) -> list[Change]:
        """Write the changes into the files; all, or none. Raises ToolError where a file is not what
        the change was made from."""
        placed: list[Change] = []
        try:
            for change in changes:
                self.workspace.write(change.place, change.after, base=change.before)
                placed.append(change)
        except BaseException:
            self.take_out(placed)
            raise
        return placed

    def take_out(self, placed: Sequence[Change]) -> None:
        """Back to what the files were, whatever a command has made of them since `put`. Raises
        OutputError for one that cannot be written."""
        for change in reversed(placed):
            self._put_back(change, self.now(change.place))

    def found(self, placed: Sequence[Change]) -> list[Change]:
        """The changes as they stand in the files now: a command may have added to them."""
        found = []
        for change in placed:
            now = self.now(change.place)
            found.append(change if now is None else replace(change, after=now.data))
        return found

    def now(self, place: Place) -> FileBytes | None:
        from ds4_agent.tools.workspace import MissingFileError

        try:
            return self.workspace.read(place)
        except MissingFileError:
            return None

    def recover(self, entry: Entry) -> list[str]:
        """Take out what a killed batch left in place of an item; the files that are left alone, as
        they are neither what it wrote nor what it found."""
        left: list[str] = []
        for file in reversed(entry.placed):
            place = self.workspace.locate(str(file["path"]))
            self.workspace.sweep(place)
            now = self.now(place)
            held = None if now is None else digest(now.data)
            if held == file["before"]:
                continue
            if held != file["after"]:
                left.append(place.shown)
                continue
            data = None if file["before"] is None else self.ledger.content(file["before"])
            self.workspace.put_back(place, data, base=now, made=int(file["made"]))
        return left

    def _looked_at(self, stage: ItemStage, own: Path | None) -> dict[Path, Change]:
        """The item's own file as it is, where nothing of it is held: a command may change it."""
        if own is None or any(change.place.real == own for change in stage.changes):
            return {}
        place = self.workspace.locate(os.fspath(own))
        now = self.now(place)
        return {own: Change(place, now, now.data if now else b"")} if now else {}

    def _take_back(self, change: Change, stage: ItemStage) -> None:
        now = self.now(change.place)
        if now is None:
            stage.failure = f"a command removed {change.place.shown}; it was put back"
        if now is not None and now.data != change.after:
            stage.hold(replace(change, after=now.data))
        self._put_back(change, now)

    def _put_back(self, change: Change, now: FileBytes | None) -> None:
        from ds4_agent.tools.types import ToolError

        before = None if change.before is None else change.before.data
        if before != (None if now is None else now.data):
            mode = None if change.before is None else stat.S_IMODE(change.before.status.st_mode)
            try:
                self.workspace.put_back(change.place, before, base=now, mode=mode, made=change.made)
            except ToolError as error:
                self.failures.append(f"{error}; ds4-agent batch --resume puts it back")
                self.check()


def files_of(
    changes: Sequence[Change], workspace: Workspace, ledger: Ledger
) -> list[dict[str, Any]]:
    """The changes as the ledger has them; their contents are kept."""
    return [
        {
            "path": os.path.relpath(change.place.real, workspace.root),
            "before": None if change.before is None else ledger.keep(change.before.data),
            "after": ledger.keep(change.after),
            "made": change.made,
        }
        for change in changes
    ]


def restored_changes(entry: Entry, tree: Tree) -> list[Change]:
    """The changes of an item that the model was done with. Raises ToolError where a file is no
    longer what they were made from, OutputError."""
    from ds4_agent.tools.types import ToolError

    changes = []
    for file in entry.record["files"]:
        place = tree.workspace.locate(str(file["path"]))
        now = tree.now(place)
        if (None if now is None else digest(now.data)) != file["before"]:
            raise ToolError(f"{place.shown} was changed by someone else meanwhile")
        after = tree.ledger.content(file["after"])
        changes.append(Change(place, now, after, int(file["made"])))
    return changes
