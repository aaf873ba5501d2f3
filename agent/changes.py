"""What one of several agents changes in the workspace they share.

In: each change of a file, as a `Watch` of the workspace. Out: the changes as one diff. Whoever was
told of changes before is told of them still. What commands change is not seen here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.tools.workspace import Watch, Workspace

__all__ = ["Changes"]


class Changes:
    """The changes of one agent. Used by its thread only."""

    def __init__(self, told: Watch | None) -> None:
        """`told` is who else is told."""
        self._told = told
        self._before: dict[Path, bytes | None] = {}
        self._after: dict[Path, bytes | None] = {}
        self._coming: bytes | None = None

    def before_write(
        self, path: Path, old: bytes | None, mode: int | None, new: bytes | None
    ) -> None:
        """See `tools.workspace.Watch`."""
        if self._told is not None:
            self._told.before_write(path, old, mode, new)
        self._coming = new
        if path not in self._after:  # else it was changed already
            self._before[path] = old

    def after_write(self, path: Path) -> None:
        """See `tools.workspace.Watch`."""
        if self._told is not None:
            self._told.after_write(path)
        self._after[path] = self._coming

    def diff(self, workspace: Workspace) -> str:
        """One unified diff of all files, "" where nothing is different."""
        from ds4_agent.tools.difference import unified

        return "".join(
            unified(_shown(workspace, path), _text(self._before[path]), _text(after))
            for path, after in self._after.items()
        )


def _shown(workspace: Workspace, path: Path) -> str:
    from ds4_agent.tools.workspace import printable

    is_inside = path.is_relative_to(workspace.root)
    return printable(os.fspath(path.relative_to(workspace.root) if is_inside else path))


def _text(data: bytes | None) -> str:
    return "" if data is None else data.decode("utf-8", "replace")
