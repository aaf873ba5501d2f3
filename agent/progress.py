"""How long work says how far it is: a line on stderr, written over on a terminal, added now and
then anywhere else.

In: texts, and amounts that grow. Out: the line, at a reader's pace; nothing where stderr is closed.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line
from ds4_agent.agent.sizes import shown_size

if TYPE_CHECKING:
    from ds4_agent.engine.api import LoadProgress

__all__ = ["LoadLine", "Pace", "ProgressLine", "load_text", "shown_time"]

REDRAW, SAY = 0.1, 5.0  # seconds between two states of the line, and between two lines
QUICK = 1.0  # seconds of loading that nobody needs to hear of
WINDOW = 20.0  # seconds a rate is the mean of


class ProgressLine:
    """The line; `close` it. `after`: seconds before anything is said. One thread at a time."""

    def __init__(self, after: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + after
        self._is_terminal = _is_terminal()
        self._is_drawn = False

    def show(self, text: Callable[[], str]) -> None:
        """Say `text`, unless something was said a moment ago: then it is not even made."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + (REDRAW if self._is_terminal else SAY)
        if self._is_terminal:
            width = max(20, shutil.get_terminal_size().columns - 1)
            _write("\r\x1b[K" + one_line(text(), width))
            self._is_drawn = True
        else:
            _write(one_line(text(), 300) + "\n")

    def close(self) -> None:
        """Leave nothing on the terminal. Safe to call twice, and to `show` again after."""
        if self._is_drawn:
            self._is_drawn = False
            _write("\r\x1b[K")


class Pace:
    """How fast an amount grew lately, and how long the rest takes."""

    def __init__(self, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """It is `done` already."""
        self._clock = clock
        self._seen = deque([(clock(), done)])

    def note(self, done: int) -> None:
        """The amount is `done` now."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()

    def rate(self) -> float:
        """Of the last seconds, a second; 0.0 where nothing grew."""
        (began, first), (now, last) = self._seen[0], self._seen[-1]
        return max(0.0, (last - first) / (now - began)) if now > began else 0.0

    def text(self, rest: int) -> str:
        """`, 41.2 MB/s, ETA 3 min 20 s`; "" where nothing can be said yet."""
        rate = self.rate()
        return f", {shown_size(round(rate))}/s, ETA {shown_time(rest / rate)}" if rate else ""


class LoadLine:
    """What `on_load` of an engine can be: silent for a model that is there at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._line, self._pace = ProgressLine(after=QUICK, clock=clock), Pace(clock=clock)

    def __call__(self, progress: LoadProgress) -> None:
        self._pace.note(progress.bytes_done)
        rest = progress.bytes_total - progress.bytes_done
        self._line.show(lambda: load_text(progress) + self._pace.text(rest))

    def close(self) -> None:
        """Leave nothing on the terminal."""
        self._line.close()


def load_text(progress: LoadProgress) -> str:
    """`loading model 12/44 layers, 41.2 GB of 151.5 GB`"""
    read, whole = shown_size(progress.bytes_done), shown_size(progress.bytes_total)
    return f"loading model {progress.done}/{progress.total} layers, {read} of {whole}"


def shown_time(seconds: float) -> str:
    """`4 s`, `3 min 20 s`, `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _is_terminal() -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return sys.stderr.isatty()
    return False


def _write(text: str) -> None:
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()
