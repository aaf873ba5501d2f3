"""What an item wants its files to be, held apart from the files until the item is done.

In: reads and writes of an item's tools (a `Stage` of `tools.workspace`). Out: `Change`s. Nothing on
disk changes here, and nothing outside the item's own file and `--scope` is ever held.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.tools.workspace import FileBytes, Place

__all__ = ["Change", "ItemStage", "missing_above"]


@dataclass(frozen=True)
class Change:
    """A file that is to become `after`. `before` is what it was; None is no file, for which `made`
    directories are missing."""

    place: Place
    before: FileBytes | None
    after: bytes
    made: int = 0

    @property
    def is_none(self) -> bool:
        return self.before is not None and self.before.data == self.after


class ItemStage:
    """The stage of one item; used by one thread at a time."""

    def __init__(self, refusal: Callable[[Path], str]) -> None:
        """`refusal(path)`: why the item may not change that file, "" where it may."""
        self.refusal = refusal
        self.failure = ""  # why the item cannot be done, whatever its model does next
        self._held: dict[Path, Change] = {}

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is to change, in the order of the first change of each file."""
        return tuple(change for change in self._held.values() if not change.is_none)

    def read(self, path: Path) -> FileBytes | None:
        """See `tools.workspace.Stage`."""
        from ds4_agent.tools.workspace import FileBytes

        change = self._held.get(path)
        if change is None:
            return None
        status = _new_file(len(change.after)) if change.before is None else change.before.status
        return FileBytes(change.after, status)

    def write(self, place: Place, data: bytes, base: FileBytes | None) -> None:
        """See `tools.workspace.Stage`. Raises ToolError for a file that is not the item's."""
        from ds4_agent.tools.types import ToolError

        reason = self.refusal(place.real)
        if reason:
            raise ToolError(f"{place.shown} was not changed: {reason}")
        held = self._held.get(place.real)
        if held is not None:
            self._held[place.real] = replace(held, after=data)
            return
        made = 0 if base is not None else missing_above(place.real)
        self._held[place.real] = Change(place, base, data, made)

    def hold(self, change: Change) -> None:
        """Hold a change whose file is checked already, in place of what is held of it."""
        self._held[change.place.real] = change

    def clear(self) -> None:
        """Hold nothing."""
        self._held = {}


def missing_above(path: Path) -> int:
    """How many of the directories above `path` there are not."""
    return sum(1 for parent in path.parents if not parent.exists())


def _new_file(size: int) -> os.stat_result:
    """The status of a file that does not exist yet."""
    now = int(time.time())
    mode = stat.S_IFREG | 0o644
    return os.stat_result((mode, 0, 0, 1, os.getuid(), os.getgid(), size, now, now, now))
