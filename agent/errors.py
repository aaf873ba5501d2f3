"""Errors of the agent's own. Each message is the one line a user is shown: what is wrong, where,
and what to do. Raised where known, shown at one place (`cli.main`), never with a traceback.
"""

from __future__ import annotations

__all__ = ["OutputError", "PullError", "StdoutError", "UsageError"]


class UsageError(Exception):
    """A command line or configuration that cannot be meant. Exit code 1."""


class OutputError(Exception):
    """What was asked for could not be written out. Exit code 2."""


class PullError(Exception):
    """A model could not be downloaded: the hub, the way to it, or what came. Exit code 2."""


class StdoutError(OutputError):
    """Standard output cannot be written. Its `__cause__` is what the system said."""
