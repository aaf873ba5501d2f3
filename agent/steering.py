"""What the user says while the model works: it is read with the results of the next calls.

In: prompts, from any thread. Out: those that are due at a tool boundary. What no boundary came for
keeps waiting, through an interrupt too, until the next one or until it is withdrawn.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ds4_agent.engine.dsml.segments import Segment, data, template

__all__ = ["Steering", "spoken"]


class Steering:
    """The prompts that wait, oldest first. Each is taken or withdrawn, never both."""

    def __init__(self) -> None:
        self._waiting: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        with self._lock:
            self._waiting = (*self._waiting, text)

    def take(self) -> tuple[str, ...]:
        """All that wait; they wait no longer."""
        with self._lock:
            taken, self._waiting = self._waiting, ()
        return taken

    def put_back(self, texts: tuple[str, ...]) -> None:
        """What was taken and could not be given waits again, before all others."""
        with self._lock:
            self._waiting = (*texts, *self._waiting)


def spoken(texts: Iterable[str]) -> list[Segment]:
    """The words at the end of a user's turn that holds something already."""
    return [segment for text in texts for segment in (template("\n\n"), data(text))]
