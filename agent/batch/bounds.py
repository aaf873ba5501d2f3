"""What a command of an item may leave behind: changes of the item's own files, and nothing else.

In: the directory before and after the command. Out: the item's files as its stage holds them; all
else as it was, what the command wrote there kept beside the ledger, and the item failed with a line
that names it. Only one command runs at a time (see `tree_lock`), so what changes meanwhile is its
doing, or somebody's who works there too: hence nothing is thrown away.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.batch.stage import Change, ItemStage, missing_above
from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import OutputError
from ds4_agent.agent.repository import repository_top

if TYPE_CHECKING:
    from ds4_agent.tools.baseline import Baseline
    from ds4_agent.tools.workspace import Workspace

__all__ = ["Bounds"]

ROUNDS = 3  # a command can hide files by a `.gitignore`, which is put back in the first
NAMED = 4  # files in a sentence
TEE_S = 0.05  # what reads our output may write it into the directory


class Bounds:
    """The bounds of a batch's commands. `close` it."""

    def __init__(self, workspace: Workspace, folder: Path, own: Sequence[Path]) -> None:
        """`folder`: of the batch; `own`: directories in which this program writes meanwhile."""
        from ds4_agent.tools.baseline import Baseline

        self.quiet = threading.Lock()  # held while nothing may be printed: it may be a file here
        self._workspace, self._folder = workspace, folder
        root = workspace.root
        tops = tuple(dict.fromkeys((repository_top(root) or root, root)))
        copies = folder / f"before-{os.getpid()}"
        left_out = tuple(Path(os.path.realpath(path)) for path in own)
        self._baseline: Baseline = Baseline(tops, copies, left_out)

    def close(self) -> None:
        """What was copied goes."""
        self._baseline.close()

    @contextmanager
    def around(self, number: int, stage: ItemStage) -> Iterator[None]:
        """A command of item `number` runs in here, alone. Raises OutputError where it cannot be
        bounded."""
        with self.quiet:
            if _is_piped():
                time.sleep(TEE_S)
            self._take()
            try:
                yield
            finally:
                try:
                    self._restore(number, stage)
                except OSError as error:
                    reason = error.strerror or str(error)
                    raise OutputError(
                        f"what a command did cannot be looked at: {reason}"
                    ) from error

    def changed_since(self, moment: float, refuses: Callable[[Path], str]) -> list[str]:
        """Files beyond an item's own that changed after `moment` (seconds since 1970)."""
        found = self._baseline.changed_since(round(moment * 1e9))
        return [self._named(path) for path in found if refuses(path)]

    def _take(self) -> None:
        try:
            _sweep(self._folder.parent)
            self._baseline.take()
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(
                f"a command cannot be run in bounds: cannot copy the files into "
                f"{self._baseline.folder}: {reason}"
            ) from error

    def _restore(self, number: int, stage: ItemStage) -> None:
        beyond: list[tuple[Path, str]] = []
        own: list[Change] = []
        aside = _free(self._folder / "strays" / str(number))
        for _ in range(ROUNDS):
            changed = self._baseline.changed()
            for path in changed:
                change = self._own_change(path, stage)
                if change is None:
                    beyond.append((path, "wrote" if os.path.lexists(path) else "removed"))
                    self._put_back(path, aside)
                else:
                    own.append(change)
                    self._baseline.put_back(path, None)
            self._baseline.remove_new_directories()
            if not changed:
                break
        for change in own:  # what is made for it can only be told now
            made = 0 if change.before else missing_above(change.place.real)
            stage.hold(Change(change.place, change.before, change.after, made))
        if beyond:
            stage.failure = self._told(beyond, aside)

    def _own_change(self, path: Path, stage: ItemStage) -> Change | None:
        """What the command made of a file of the item; None where it may not be changed so."""
        from ds4_agent.tools.types import ToolError
        from ds4_agent.tools.workspace import FileBytes

        if stage.refusal(path) or ".git" in path.parts:
            return None
        held = self._baseline.held.get(path)
        if held is not None and (held.copy is None or not stat.S_ISREG(held.status.st_mode)):
            return None
        try:
            place = self._workspace.locate(os.fspath(path))
            now = self._workspace.read(place) if place.real == path else None
        except ToolError:
            return None
        if now is None:
            return None
        before = None if held is None else FileBytes(held.content(), held.status)
        return Change(place, before, now.data)

    def _put_back(self, path: Path, aside: Path) -> None:
        from ds4_agent.tools.types import ToolError

        kept = aside / os.path.relpath(path, self._baseline.tops[0])
        try:
            self._baseline.put_back(path, kept)
        except ToolError as error:
            held, copy = self._baseline.held.get(path), _free(Path(f"{kept}.before"))
            said = ""
            if held is not None and held.copy is not None:
                with suppress(OSError):
                    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    held.copy.rename(copy)
                    said = f"; its content before is in {copy}"
            raise OutputError(
                f"a command changed more than its item's files: {error}{said}"
            ) from error

    def _told(self, beyond: Sequence[tuple[Path, str]], aside: Path) -> str:
        parts = []
        for verb in ("wrote", "removed"):
            names = [self._named(path) for path, what in beyond if what == verb]
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                parts.append(f"{verb} {', '.join(names[:NAMED])}{more}")
        kept = f" (what it wrote: {aside})" if aside.exists() else ""
        return f"a command {' and '.join(parts)}, which it may not; all was put back{kept}"

    def _named(self, path: Path) -> str:
        return one_line(os.path.relpath(path, self._workspace.root), 120)


def _free(path: Path) -> Path:
    """`path`, or one like it that there is not yet."""
    tries = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000)))
    return next(each for each in tries if not os.path.lexists(each))


def _is_piped() -> bool:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            if stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
                return True
    return False


def _sweep(batches: Path) -> None:
    """The copies of killed batches go."""
    from ds4_agent.tools.process import is_alive

    for left in batches.glob("*/before-*"):
        pid = left.name.removeprefix("before-")
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
