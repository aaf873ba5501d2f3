"""The sessions there are: listed, found by name, renamed, copied, removed.

In: the directory that holds them, each in a directory of its own. Out: `Summary`s. A session that
cannot be read costs only itself and says why in its `note`. Whatever writes holds the session's
lock, and nothing is ever left half done. Raises SessionError, of which SessionFileError and
SessionInUseError are kinds.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from ds4_agent.sessions.errors import SessionError, SessionFileError
from ds4_agent.sessions.index import Row, load_index, store_index
from ds4_agent.sessions.lock import SessionLock
from ds4_agent.sessions.log import SessionLog, new_session_id
from ds4_agent.sessions.private import sync, sync_directory
from ds4_agent.sessions.summary import EVENTS, Summary, number_of, read_summary

__all__ = ["find", "fork", "in_directory", "list_sessions", "remove", "rename", "summary_of"]

INDEX_VERSION = 2  # of what a row holds: size, time in ns, the fields of a Summary but its id
REMOVED, UNFINISHED = ".removed-", ".fork-"
COPIED = (EVENTS, "tokens.jsonl")
AN_HOUR = 3600.0


def list_sessions(root: Path, directory: Path | None = None) -> list[Summary]:
    """The sessions, newest first: all of them, or those that last worked in `directory`.

    Opens no log whose size and time are those of the last list. No `root`, no sessions.
    """
    known = load_index(root, INDEX_VERSION)
    rows: dict[str, Row] = {}
    sessions: list[Summary] = []
    place = os.fspath(root)
    for name in _names(root):
        row, summary = _look(place, name, known.get(name))
        sessions.append(summary)
        if row is not None:
            rows[name] = row
    if rows != known:
        store_index(root, INDEX_VERSION, rows)
    if directory is not None:
        sessions = in_directory(sessions, directory)
    return sorted(sessions, key=attrgetter("last_used", "id"), reverse=True)


def summary_of(session: Path) -> Summary:
    """The summary of one session, whose log is opened only if it changed since the last list."""
    known = load_index(session.parent, INDEX_VERSION).get(session.name)
    return _look(os.fspath(session.parent), session.name, known)[1]


def in_directory(sessions: list[Summary], directory: Path) -> list[Summary]:
    """Those of `sessions` that last worked in `directory`, by whatever links they came there."""
    real = os.path.realpath(directory)
    is_here = {summary.directory: False for summary in sessions}
    for place in is_here:
        is_here[place] = bool(place) and "\0" not in place and os.path.realpath(place) == real
    return [summary for summary in sessions if is_here[summary.directory]]


def find(root: Path, name: str) -> Summary:
    """The session of this id, of the only one that begins with `name`, or whose id ends with it
    after a `-`. Raises SessionError where there is none or more than one."""
    names = list(_names(root))
    if name not in names:
        names = [n for n in names if n.startswith(name) or n.rpartition("-")[2] == name]
    else:
        names = [name]
    if not name or not names:
        raise SessionError(f"there is no session {name or 'of no name'}; see sessions list --all")
    if len(names) > 1:
        shown = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
        raise SessionError(
            f"{name} is the beginning of {number_of(len(names), 'session')}: {shown}"
        )
    return summary_of(root / names[0])


def rename(session: Path, title: str) -> None:
    """Give a session another title. Raises SessionError, SessionInUseError."""
    text = " ".join(title.split())
    if not text:
        raise SessionError("a title needs a letter")
    _refuse_link(session)
    log = SessionLog(session)
    with _failing(session, "renamed"):
        log.lock.acquire()
    try:
        log.event({"time": round(time.time(), 3), "type": "title", "text": text}, durable=True)
    finally:
        log.close()
    if log.failure:
        raise SessionFileError(log.failure)


def remove(session: Path) -> None:
    """Remove a session with all that is saved for its undo; of a link to one, the link.

    Raises SessionError and SessionInUseError with the session as it was.
    """
    with _failing(session, "removed"):
        if session.is_symlink():
            session.unlink()
            return
        lock = SessionLock(session)
        lock.acquire()
        try:
            gone = session.with_name(REMOVED + session.name)
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(session, gone)  # at once and whole, whatever happens to the rest
            sync_directory(session.parent)
        finally:
            lock.release()
    _sweep(session.parent)


def fork(session: Path, now: datetime) -> Path:
    """A new session that begins as this one, which may be in use; returns its directory.

    Copied are the event log, the token log and what is saved for undo; `forked_from` in its first
    record says of which it is a copy. Raises SessionError with nothing left behind.
    """
    from ds4_agent.sessions.snapshots import copy_snapshots  # a list does without the code for it

    _refuse_link(session)
    copy = session.with_name(new_session_id(now))
    unfinished = session.with_name(UNFINISHED + copy.name)
    with _failing(session, "copied"):
        try:
            unfinished.mkdir(mode=0o700)
            for name in COPIED:
                try:
                    lines = _whole_lines(session / name)
                except FileNotFoundError:
                    if name == EVENTS:
                        raise
                    continue
                if name == EVENTS:
                    lines = _with_header(lines, copy.name, session.name, now.timestamp())
                _write(unfinished / name, b"".join(lines))
            copy_snapshots(session, unfinished)
            sync_directory(unfinished)
            os.rename(unfinished, copy)
            sync_directory(copy.parent)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    _sweep(session.parent)
    return copy


def _names(root: Path) -> Iterator[str]:
    """Whatever may be a session. Names with a dot in front are ours."""
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and (entry.is_symlink() or entry.is_dir()):
                    yield entry.name
    except FileNotFoundError:
        return
    except OSError as error:
        raise SessionFileError(f"cannot read {root}: {error.strerror or error}") from error


def _look(root: str, name: str, known: Row | None) -> tuple[Row | None, Summary]:
    """A session's row, None where it is better looked at again, and what it stands for."""
    try:
        about = os.lstat(f"{root}/{name}/{EVENTS}")
    except OSError:
        return None, read_summary(Path(root, name))
    if known is not None and known[0] == about.st_size and known[1] == about.st_mtime_ns:
        return known, Summary(name, *known[2:])
    summary = read_summary(Path(root, name))
    is_sound = stat.S_ISREG(about.st_mode) and summary.is_readable
    row = [about.st_size, about.st_mtime_ns, *_fields(summary)]
    return row if is_sound else None, summary


def _fields(summary: Summary) -> list[Any]:
    return [getattr(summary, name) for name in Summary.__slots__[1:]]


def _whole_lines(path: Path) -> list[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path.name} is not a file")
        data = file.read()
    return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)


def _with_header(lines: list[bytes], name: str, origin: str, now: float) -> list[bytes]:
    """The lines of a copy: its own first record, then the others as they are, damage included."""
    header: dict[str, Any] = {}
    for index, line in enumerate(lines):
        record = _decoded(line)
        if record is not None and record.get("type") == "session":
            header, lines = record, lines[:index] + lines[index + 1 :]
            break
    header = {**header, "time": round(now, 3), "type": "session", "session_id": name}
    text = json.dumps({**header, "forked_from": origin}, separators=(",", ":"))
    return [text.encode("ascii") + b"\n", *lines]


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _write(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())


def _refuse_link(session: Path) -> None:
    if session.is_symlink():
        raise SessionError(f"session {session.name} is a symbolic link, which is not followed")


def _sweep(root: Path) -> None:
    """What removing has hidden, and what a copy that was killed left behind."""
    with suppress(OSError):
        for name in os.listdir(root):
            if name.startswith(REMOVED) or (name.startswith(UNFINISHED) and _is_old(root / name)):
                shutil.rmtree(root / name, ignore_errors=True)


def _is_old(path: Path) -> bool:
    return time.time() - os.lstat(path).st_mtime > AN_HOUR


@contextmanager
def _failing(session: Path, what: str) -> Iterator[None]:
    """Tell what the disk refuses."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise SessionFileError(f"session {session.name} cannot be {what}: {reason}") from error
