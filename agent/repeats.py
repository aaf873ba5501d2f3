"""Notices that the model is going round in circles.

In: every call and its answer, within one turn. Out: for a call about to be made: run it, answer it
from memory, or stop. A call repeats only while nothing has changed: after any other call that may
change something, the same call is new (test, edit, test again is how work looks).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Memory", "Remembered"]

# Asks about something that changes by itself: the same question is asked again on purpose.
_POLLS = frozenset({"bash_status"})
POLL_LIMIT = 30  # unchanged answers in a row before a poll, too, is a circle
# Two edits that undo each other change something every time; the same call with the same result
# this often in one turn is a circle all the same.
CIRCLE_LIMIT = 12


@dataclass
class Remembered:
    """The last answer to a call and how often it was given."""

    content: str
    is_error: bool
    changes: int  # how many changing calls had run when it was given
    is_settled: bool = True  # no background job ran when it was given
    unchanged: int = 1  # times asked with nothing changed in between
    total: int = 1  # times answered with the very same content


class Memory:
    """The calls of one turn."""

    def __init__(self) -> None:
        self._answers: dict[str, Remembered] = {}
        self._changes = 0

    def look_up(
        self, tool: str, arguments: Mapping[str, Any], *, changes_alone: bool = False
    ) -> Remembered | None:
        """The remembered answer, counted once more, if asking again would tell nothing new.

        None: the call is new and should run. `unchanged` says which time this is.
        `changes_alone`: a background job runs, so that things change without a call.
        """
        seen = self._answers.get(_key(tool, arguments))
        if seen is None or changes_alone or tool in _POLLS or seen.changes != self._changes:
            return None
        if not seen.is_settled:  # the job may have gone on after it
            return None
        seen.unchanged += 1
        return seen

    def store(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        content: str,
        is_error: bool,
        *,
        changed: bool,
        changes_alone: bool = False,
    ) -> bool:
        """Remember an answer. `changed`: the call ran and may have changed something;
        `changes_alone` as in `look_up`.

        Returns True when this same answer has come so often that the turn should stop.
        """
        self._changes += changed
        key = _key(tool, arguments)
        before = self._answers.get(key)
        total = before.total + 1 if before is not None and before.content == content else 1
        self._answers[key] = Remembered(
            content, is_error, self._changes, is_settled=not changes_alone, total=total
        )
        return total >= (POLL_LIMIT if tool in _POLLS else CIRCLE_LIMIT)


def _key(tool: str, arguments: Mapping[str, Any]) -> str:
    return json.dumps([tool, arguments], sort_keys=True, default=str)
