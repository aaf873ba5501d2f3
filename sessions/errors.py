"""Errors of what survives a process. Each message is the one line a user is shown."""

from __future__ import annotations

__all__ = ["SnapshotError"]


class SnapshotError(Exception):
    """Something saved for undo cannot be read or written."""
