"""SIGINT and SIGTERM of a headless run: finish what can be finished, and be gone in a second.

In: a function that interrupts the run under way, if there is one. Out: `signum` once a signal came.
The first signal interrupts; if there is no run yet, if it has not ended `PATIENCE` seconds later,
or at a second signal, `last_words` runs and the process ends at once. A handler never raises: an
exception out of nowhere would surface in whatever code happens to run, or be swallowed there.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

__all__ = ["Signals"]

PATIENCE = 0.7  # seconds: saving, stopping commands and printing the result fit into a second
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """A context in which the signals are ours. Main thread only."""

    def __init__(self) -> None:
        self.patience = PATIENCE  # of this run
        self.signum = 0  # of the first signal, 0 while there was none
        self.interrupt: Callable[[], None] | None = None
        self.last_words: Callable[[], None] | None = None
        self._before: dict[int, object] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Signals:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as `signal` returned it

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        is_first = not self.signum
        self.signum = self.signum or signum
        if self.interrupt is None or not is_first:
            self._leave()
            return
        self._timer = threading.Timer(self.patience, self._leave)
        self._timer.daemon = True
        self._timer.start()
        self.interrupt()

    def _leave(self) -> None:
        """End the process from any thread. Its commands end with it: they are supervised."""
        if self.last_words is not None:
            with suppress(Exception):  # nothing that goes wrong now may keep the process
                self.last_words()
        os._exit(128 + self.signum)
