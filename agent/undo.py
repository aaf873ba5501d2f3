"""Undo: what the last turn did to files, taken back file by file.

In: the saved turns of a session and its workspace. Out: files as they were, and what happened to
each. A file goes back only while it holds exactly what the agent wrote last; one that somebody has
changed since is left alone and named. Git, the index and everything the agent did not write stay
untouched.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import OutputError, UsageError

if TYPE_CHECKING:
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.sessions.snapshots import SavedFile, SavedTurn, Snapshots
    from ds4_agent.tools.workspace import Workspace

__all__ = ["NOTHING", "NOT_SAVED", "FileUndone", "TurnUndone", "Undo", "run_undo"]

NOT_SAVED = "there is no undo with --no-session: nothing is saved then"
NOTHING = "there is nothing to undo"


@dataclass(frozen=True)
class FileUndone:
    """What undo did to one file, as the model knows it (`shown`). `reason` is why it was left."""

    shown: str
    what: Literal["restored", "removed", "unchanged", "left"]
    reason: str = ""


@dataclass(frozen=True)
class TurnUndone:
    """A turn taken back."""

    files: tuple[FileUndone, ...]
    had_commands: bool
    damaged: int

    @property
    def changed(self) -> tuple[str, ...]:
        """The files that are not what they were before the undo."""
        return tuple(file.shown for file in self.files if file.what in ("restored", "removed"))

    def text(self) -> str:
        """One line a file, then what the user must know besides."""
        lines = [_line(file) for file in self.files]
        if self.had_commands:
            lines.append("commands ran as well; what they changed is not undone")
        if self.damaged:
            lines.append(
                f"damaged records in what was saved for undo: {self.damaged}; "
                "the changes they stood for are not undone"
            )
        return "\n".join(lines)


class Undo:
    """The undo of a living session."""

    def __init__(self, snapshots: Snapshots, workspace: Workspace) -> None:
        self.snapshots = snapshots
        self._workspace = workspace

    def last_turn(self, above: int = 0) -> TurnUndone:
        """Take back the last turn with a higher number than `above` that changed files and was not
        undone.

        Raises UsageError when there is none, OutputError when that cannot be written down.
        """
        from ds4_agent.sessions.errors import SnapshotError

        while (turn := self.snapshots.last_turn(above)) is not None:
            try:
                if not turn.is_begun and self._did_nothing(turn):
                    self.snapshots.undo_ended(turn)
                    continue
                self.snapshots.undo_begins(turn)
                # Backwards: a directory was made for the first file in it and goes with the last.
                files = tuple(self._undo(file) for file in reversed(turn.files))
                undone = TurnUndone(files[::-1], turn.had_commands, turn.damaged)
                self.snapshots.undo_ended(turn, undone.changed)
            except SnapshotError as error:
                raise OutputError(str(error)) from error
            return undone
        raise UsageError(NOTHING)

    @property
    def changes(self) -> int:
        """The number of the last turn that is saved; those to come have higher ones."""
        return self.snapshots.last_number

    def turns_after(self, changes: int) -> TurnUndone:
        """Take back, newest first, every turn with a higher number than `changes` that was not
        undone. Raises OutputError when that cannot be written down."""
        files: dict[str, FileUndone] = {}
        had_commands, damaged = False, 0
        while self.snapshots.last_turn(changes) is not None:
            try:
                undone = self.last_turn(changes)
            except UsageError:  # what was left of them had changed nothing
                break
            for file in undone.files:  # what became of a file in the end
                if file.what != "unchanged" or file.shown not in files:
                    files[file.shown] = file
            had_commands |= undone.had_commands
            damaged = undone.damaged
        # The model went back as well: it never saw what is undone.
        self.snapshots.told(turn for turn in self.snapshots.news() if turn > changes)
        return TurnUndone(tuple(files.values()), had_commands, damaged)

    def left_by_rewind(self, changes: int) -> str:
        """What the model is told when the conversation goes back and the files do not; "" where
        no later turn changed any."""
        turns = self.snapshots.turns_after(changes)
        names = dict.fromkeys(os.fspath(file.path) for turn in turns for file in turn.files)
        if not names:
            return ""
        listed = ", ".join(one_line(name, 500) for name in names)
        return (
            "The conversation went back to here and the files did not; these were changed by what "
            f"followed and may differ from what you have seen: {listed}"
        )

    def news(self) -> dict[int, str]:
        """What the model has yet to be told, by turn: undos by `/undo` and by `--undo` in another
        process, also while the session did not run."""
        return {
            turn: f"Undone by the user, the files are as before: {', '.join(changed)}"
            for turn, changed in self.snapshots.news().items()
        }

    def _did_nothing(self, turn: SavedTurn) -> bool:
        """Whether none of its changes was made: each was refused, or the process was killed."""
        for file in turn.files:
            if file.is_certain or self._undo(file, only_look=True).what != "unchanged":
                return False
        return True

    def _undo(self, file: SavedFile, *, only_look: bool = False) -> FileUndone:
        from ds4_agent.sessions.errors import SnapshotError
        from ds4_agent.sessions.snapshots import digest
        from ds4_agent.tools.types import ToolError
        from ds4_agent.tools.workspace import MissingFileError, printable

        shown = printable(os.fspath(file.path))
        try:
            self._workspace.admit(file.path)  # where the user let the agent write
            place = self._workspace.locate(os.fspath(file.path))
            if place.real != file.path:
                return FileUndone(shown, "left", "a symbolic link leads elsewhere now")
            shown = place.shown
            try:
                base = self._workspace.read(place)
            except MissingFileError:
                base = None
            now = None if base is None else digest(base.data)
            if now == file.before:
                return FileUndone(shown, "unchanged")
            if now not in file.written:
                return FileUndone(shown, "left", "it is not what the agent wrote last")
            if only_look:
                return FileUndone(shown, "left")
            data = None if file.before is None else self.snapshots.content(file.before)
            self._workspace.put_back(place, data, base=base, mode=file.mode, made=file.made)
        except (SnapshotError, ToolError) as error:
            return FileUndone(shown, "left", str(error))
        return FileUndone(shown, "removed" if data is None else "restored")


def run_undo(options: RunOptions) -> int:
    """`ds4-agent --undo`: the last turn of the latest session of this directory. Loads no model.

    Prints a line a file. Raises UsageError when there is nothing to undo.
    """
    from ds4_agent.sessions.snapshots import Snapshots, latest_changed
    from ds4_agent.tools.workspace import Workspace

    if not options.keeps_log:
        raise UsageError(NOT_SAVED)
    session = latest_changed(options.places.sessions, Path(os.path.realpath(options.directory)))
    if session is None:
        raise UsageError(f"{NOTHING} in {options.directory}")
    snapshots = Snapshots(session, ())
    try:
        root, *extra = snapshots.roots
        print(Undo(snapshots, Workspace(root, extra)).last_turn().text(), flush=True)
    finally:
        snapshots.close()
    return 0


def _line(file: FileUndone) -> str:
    match file.what:
        case "restored":
            said = f"restored {file.shown}"
        case "removed":
            said = f"removed {file.shown}, which the turn had created"
        case "unchanged":
            said = f"unchanged {file.shown}: it is already what it was before"
        case "left":
            said = f"left alone {file.shown}: {file.reason}"
    return one_line(said, 1000)
