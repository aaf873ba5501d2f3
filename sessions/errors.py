"""Errors of what survives a process. Each message is the one line a user is shown."""

from __future__ import annotations

from datetime import datetime

__all__ = ["SessionError", "SessionFileError", "SessionInUseError", "SnapshotError"]


class SnapshotError(Exception):
    """Something saved for undo cannot be read or written."""


class SessionError(Exception):
    """A session that is not there, is not the only one meant, or cannot be what is asked of it."""


class SessionFileError(SessionError):
    """The disk refuses to read or write a session."""


class SessionInUseError(SessionError):
    """Another process writes the session. `pid` and `since` (seconds since 1970) are 0 where it is
    not known which."""

    def __init__(self, session_id: str, pid: int, since: float) -> None:
        self.session_id, self.pid, self.since = session_id, pid, since
        who = f"process {pid}" if pid else "another process"
        when = f", since {_local(since)}" if since else ""
        super().__init__(f"session {session_id} is open in {who}{when}")


def _local(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
    except (OSError, OverflowError, ValueError):  # a year that cannot be
        return "a time that cannot be read"
