"""What files were before the agent changed them: the memory behind undo.

In: a file's bytes before each change and what is about to be written there, turn by turn. Out: the
last turn that can be undone, as saved files, and their contents. Never touches a file outside its
own directory, and never ends the session: what cannot be saved is said once in `failure`.

On disk, in the session's directory (0700, files 0600):

    undo/journal           one record a line, appended: check (8 hex digits of the SHA-256 of the
                           rest), a space, JSON
    undo/<sha256>          the bytes of one saved content, once however often it occurs

    {"type": "roots", "roots": […]}             where the session works; the first is its directory
    {"type": "before", "turn", "path", "before", "mode", "made", "base", "after"}
                           on the disk itself before the file is changed from `base` to `after`;
                           `before` and `mode` are what an undo of the turn goes back to, so that
                           the last record of a file suffices; the hashes are null where there is
                           no file; `made` counts the directories made for a new one
    {"type": "after", "turn", "path"}           the change of that path's last `before` was made
    {"type": "command", "turn"}                 a command ran: what it changed is not saved
    {"type": "undo", "turn"} {"type": "undone", "turn", "changed"}
                           `changed` names the files that the undo changed, for the model
    {"type": "told", "turn"}                    the model has read of that undo
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ds4_agent.sessions.errors import SnapshotError
from ds4_agent.sessions.private import make_private, sync, sync_directory

__all__ = ["SavedFile", "SavedTurn", "Snapshots", "copy_snapshots", "digest", "latest_changed"]

FOLDER, JOURNAL, UNFINISHED = "undo", "journal", ".tmp"
_CONTENT = re.compile(r"[0-9a-f]{64}")
CHECK = 8  # characters of a line's check


@dataclass(frozen=True)
class SavedFile:
    """What one turn did to one file. A content is named by its SHA-256; None is no file.

    `written`: what the file holds if nobody else has touched it since. It is one content, or two
    where a killed process left open whether its last change was made.
    """

    path: Path
    before: str | None
    mode: int | None
    made: int
    written: tuple[str | None, ...]
    is_certain: bool = False  # at least one change of it was made


@dataclass(frozen=True)
class SavedTurn:
    """A turn that has not been undone. `files` in the order they were first changed."""

    number: int
    files: tuple[SavedFile, ...]
    is_begun: bool  # an undo of it began and did not come to its end
    had_commands: bool  # commands ran in it or since
    damaged: int  # records of the session that cannot be read


@dataclass
class _Journal:
    """The records of a session, folded."""

    roots: list[Path] = field(default_factory=list)
    turns: dict[int, dict[Path, SavedFile]] = field(default_factory=dict)
    commands: set[int] = field(default_factory=set)
    begun: set[int] = field(default_factory=set)
    undone: set[int] = field(default_factory=set)
    news: dict[int, tuple[str, ...]] = field(default_factory=dict)  # undone, and not told yet
    damaged: int = 0

    @property
    def last_number(self) -> int:
        return max((*self.turns, *self.commands), default=0)


class Snapshots:
    """The saved files of one session. `failure` is one line once something could not be saved."""

    def __init__(self, session: Path, roots: Sequence[Path]) -> None:
        """Nothing is created before the first change."""
        self.failure = ""
        self._folder = session / FOLDER
        self._roots = tuple(roots)
        self._journal = -1
        self._lock = threading.RLock()  # sub-agents run commands while others change files
        self._turn = 0
        self._is_new_turn = True
        self._saved: Path | None = None  # the path of the change under way
        self._files: dict[Path, SavedFile] = {}  # of this turn
        self._lost: set[Path] = set()  # of this turn: a change of them could not be saved

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directories the session has worked in, its own first."""
        known = [*_read(self._folder).roots, *self._roots]
        return tuple(dict.fromkeys(known))

    def new_turn(self) -> None:
        """What is saved from here on belongs to a turn of its own."""
        self._is_new_turn = True
        self._files, self._lost = {}, set()

    def before_write(
        self, path: Path, old: bytes | None, mode: int | None, new: bytes | None
    ) -> None:
        """Save `old` on the disk itself; `path` is about to become `new` (None: no file)."""
        with self._lock:
            self._save(path, old, mode, new)

    def _save(self, path: Path, old: bytes | None, mode: int | None, new: bytes | None) -> None:
        self._saved = None
        if path in self._lost:  # going back half of the way would be worse than not at all
            return
        try:
            self._open()
            base = None if old is None else digest(old)
            file = self._files.get(path)
            if file is None or base not in file.written:
                # The first change of the turn, or somebody else has changed the file since the
                # turn's last: what they made of it is what has to come back.
                if old is not None:
                    self._keep(old)
                made = 0 if old is not None else _missing_above(path)
                file = SavedFile(path, base, mode, made, ())
            after = None if new is None else digest(new)
            record = {"type": "before", "turn": self._turn, "path": os.fspath(path)}
            record |= {"before": file.before, "mode": file.mode, "made": file.made}
            record |= {"base": base, "after": after}
            self._append(record)
        except OSError as error:
            self._lost.add(path)
            self.failure = f"what {path} was cannot be saved for undo: {error.strerror or error}"
            return
        self._files[path] = _announced(record)
        self._saved = path

    def after_write(self, path: Path) -> None:
        """The change that was announced has been made."""
        if self._saved == path:
            self._files[path] = _made(self._files[path])
            self._try({"type": "after", "turn": self._turn, "path": os.fspath(path)})

    def command_ran(self) -> None:
        """A command is about to run; what it changes cannot be undone."""
        self._try({"type": "command"})

    @property
    def last_number(self) -> int:
        """The number of the last turn that changed files or ran commands."""
        return _read(self._folder).last_number

    def last_turn(self, above: int = 0) -> SavedTurn | None:
        """The last turn, of those with higher numbers than `above`, that changed files and has not
        been undone."""
        return next(iter(self.turns_after(above)), None)

    def turns_after(self, number: int) -> list[SavedTurn]:
        """The turns with higher numbers that changed files and have not been undone, newest
        first."""
        journal = _read(self._folder)
        return [
            SavedTurn(
                turn,
                tuple(journal.turns[turn].values()),
                is_begun=turn in journal.begun,
                had_commands=any(ran >= turn for ran in journal.commands),
                damaged=journal.damaged,
            )
            for turn in sorted(set(journal.turns) - journal.undone, reverse=True)
            if turn > number
        ]

    def content(self, name: str) -> bytes:
        """A saved content, exactly as it was. Raises SnapshotError when it is damaged or gone."""
        try:
            data = _read_bytes(self._folder / name)
        except FileNotFoundError:
            raise SnapshotError("its saved content is gone") from None
        except OSError as error:
            raise SnapshotError(f"its saved content cannot be read: {error.strerror}") from error
        if digest(data) != name:
            raise SnapshotError("its saved content is damaged")
        return data

    def undo_begins(self, turn: SavedTurn) -> None:
        """On the disk before the first file is put back. Raises SnapshotError."""
        self._mark("undo", turn)

    def undo_ended(self, turn: SavedTurn, changed: Sequence[str] = ()) -> None:
        """The turn will not be undone again; `changed` is what the model has to know of it.
        Raises SnapshotError."""
        self._mark("undone", turn, changed=list(changed))

    def news(self) -> dict[int, tuple[str, ...]]:
        """By turn, what undos changed that the model was not told of; other processes undo too."""
        return _read(self._folder).news

    def told(self, turns: Iterable[int]) -> None:
        """The model knows of the undos of these turns."""
        for turn in turns:
            self._try({"type": "told", "turn": turn})

    def close(self) -> None:
        """Safe to call twice."""
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1

    def _mark(self, kind: str, turn: SavedTurn, **more: Any) -> None:
        try:
            with self._lock:
                self._open()
                self._append({"type": kind, "turn": turn.number, **more})
        except OSError as error:
            reason = error.strerror or error
            raise SnapshotError(f"cannot write {self._folder / JOURNAL}: {reason}") from error

    def _try(self, record: Mapping[str, Any]) -> None:
        try:
            with self._lock:
                self._open()
                self._append({"turn": self._turn, **record})
        except OSError as error:
            self.failure = f"undo is incomplete from here on: {error.strerror or error}"

    def _open(self) -> None:
        """The journal open at its end, and the turn's number known."""
        if self._journal < 0:
            make_private(self._folder)
            for name in os.listdir(self._folder):
                if name.endswith(UNFINISHED):  # of a process that was killed
                    os.unlink(self._folder / name)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._journal = os.open(self._folder / JOURNAL, flags, 0o600)
            _drop_torn_end(self._journal)
            sync_directory(self._folder)
            journal = _read(self._folder)
            self._turn = journal.last_number
            if any(root not in journal.roots for root in self._roots):
                self._append({"type": "roots", "roots": [os.fspath(root) for root in self._roots]})
        if self._is_new_turn:
            self._turn += 1
            self._is_new_turn = False

    def _append(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, separators=(",", ":")).encode("ascii")
        line = digest(text)[:CHECK].encode("ascii") + b" " + text + b"\n"
        size = os.fstat(self._journal).st_size
        try:
            _write_all(self._journal, line)
            sync(self._journal)
        except OSError:
            with suppress(OSError):  # the disk is full: leave whole lines only
                os.ftruncate(self._journal, size)
            raise

    def _keep(self, data: bytes) -> None:
        """Store a content, once."""
        name = digest(data)
        with suppress(SnapshotError):  # not there, or damaged: written again
            self.content(name)
            return
        temporary = self._folder / f"{name}.{secrets.token_hex(4)}{UNFINISHED}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        try:
            _write_all(descriptor, data)
            sync(descriptor)
            os.rename(temporary, self._folder / name)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        sync_directory(self._folder)


def copy_snapshots(session: Path, copy: Path) -> None:
    """Give a copy of a session what it needs to undo the turns it begins with. A saved content is
    never changed, so both can have the same file. Raises OSError."""
    try:
        journal = _read_bytes(session / FOLDER / JOURNAL)
    except FileNotFoundError:
        return
    make_private(copy / FOLDER)
    for name in os.listdir(session / FOLDER):
        if _CONTENT.fullmatch(name):
            os.link(session / FOLDER / name, copy / FOLDER / name, follow_symlinks=False)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(copy / FOLDER / JOURNAL, flags, 0o600), "wb") as file:
        file.write(journal[: journal.rfind(b"\n") + 1])
        file.flush()
        sync(file.fileno())
    sync_directory(copy / FOLDER)


def digest(data: bytes) -> str:
    """The name of a content."""
    return hashlib.sha256(data).hexdigest()


def latest_changed(sessions: Path, root: Path) -> Path | None:
    """The directory of the latest session that worked in `root` and changed files."""
    try:
        # A session's name begins with its time; one with a dot is being removed or copied.
        names = sorted((n for n in os.listdir(sessions) if n[0] != "."), reverse=True)
    except OSError:
        return None
    for name in names:
        journal = _read(sessions / name / FOLDER)
        if journal.turns and journal.roots[:1] == [root]:
            return sessions / name
    return None


def _read(folder: Path) -> _Journal:
    """The journal, as far as it can be read. A torn last line was never followed by a change."""
    journal = _Journal()
    try:
        data = _read_bytes(folder / JOURNAL)
    except OSError:
        return journal
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        check, text = line[:CHECK], line[CHECK + 1 :]
        if check == digest(text)[:CHECK].encode("ascii"):
            _fold(journal, json.loads(text))
        else:
            journal.damaged += 1
    return journal


def _fold(journal: _Journal, record: Mapping[str, Any]) -> None:
    match record["type"]:
        case "roots":
            journal.roots += (Path(root) for root in record["roots"])
        case "before":
            files = journal.turns.setdefault(record["turn"], {})
            file = _announced(record)
            known = files.get(file.path)
            files[file.path] = replace(file, is_certain=known is not None and known.is_certain)
        case "after":
            files = journal.turns.get(record["turn"], {})
            path = Path(record["path"])
            if path in files:  # else its `before` is damaged, and counted
                files[path] = _made(files[path])
        case "command":
            journal.commands.add(record["turn"])
        case "undo":
            journal.begun.add(record["turn"])
        case "undone":
            journal.undone.add(record["turn"])
            if changed := record.get("changed"):
                journal.news[record["turn"]] = tuple(changed)
        case "told":
            journal.news.pop(record["turn"], None)


def _announced(record: Mapping[str, Any]) -> SavedFile:
    """The file of a `before` whose change may have been made or not."""
    before, base, after = record["before"], record["base"], record["after"]
    written = (after,) if base in (before, after) else (base, after)
    return SavedFile(Path(record["path"]), before, record["mode"], record["made"], written)


def _made(file: SavedFile) -> SavedFile:
    return replace(file, written=file.written[-1:], is_certain=True)


def _missing_above(path: Path) -> int:
    """How many directories have to be made before `path` can be."""
    return sum(1 for above in path.parents if not os.path.lexists(above))


def _read_bytes(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        return file.read()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _drop_torn_end(descriptor: int) -> None:
    """Cut a last line that a killed process did not finish: the next one must begin a line."""
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, size, 0)
    if size and not data.endswith(b"\n"):
        os.ftruncate(descriptor, data.rfind(b"\n") + 1)
