"""`ds4-agent model convert SRC DST --recipe …`: a checkpoint in the engine's own layout.

In: its arguments. Out: progress on stderr, what was made on stdout, or JSON with `--json`; the exit
code. A signal stops it; the same command goes on where it stopped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ds4_agent.agent.cli import Parser, add_common, existing_directory
from ds4_agent.agent.display import visible
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.printing import print_json, warn
from ds4_agent.agent.signals import Signals
from ds4_agent.agent.sizes import shown_size

if TYPE_CHECKING:
    from ds4_agent.engine.weights.calibration import Calibration
    from ds4_agent.engine.weights.convert import Converted, Progress
    from ds4_agent.engine.weights.recipe import Recipe

__all__ = ["run_convert"]

DESCRIPTION = """\
Make a checkpoint in the engine's own layout in DST, a new directory, of the one in SRC: DeepSeek's
own repository, one in transformers' naming, or one of MLX. native loses not a bit; q4, q3, q2 and
q2-96 round the routed experts to so many bits (2 for q2-96, which fits a Mac of 96 GB), and
attention, shared experts, embedding and head to 6 or 8. --calibrate rounds so that least is lost
where a text, run through SRC first, needs it: FILE is that text, `handbook` half of the product's
own, or the ds4-importance.safetensors of an earlier result, maybe made on a larger machine. After
an interruption of any kind the same command goes on where it stopped."""
REFRESH = 0.2  # seconds between two updates of a terminal


def run_convert(arguments: Sequence[str]) -> int:
    """Run `ds4-agent model convert …`. Raises UsageError and EngineError."""
    from ds4_agent.engine import blas

    blas.preload()  # before MLX comes
    from ds4_agent.agent.model_calibration import calibration_of
    from ds4_agent.agent.model_names import model_directory, pulled_directory
    from ds4_agent.agent.places import find_places
    from ds4_agent.engine.weights.recipe import RECIPES

    parser = Parser(prog="ds4-agent model convert", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("source", metavar="SRC", help="nano, a pulled OWNER/NAME, or a directory")
    parser.add_argument("destination", metavar="DST", type=Path, help="the directory to make")
    parser.add_argument("--recipe", required=True, choices=list(RECIPES), metavar="|".join(RECIPES))
    parser.add_argument("--calibrate", metavar="FILE", help="what weights the rounding")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    add_common(parser)
    chosen = parser.parse_intermixed_args(arguments)
    base = existing_directory(chosen.cd or Path())
    is_nano = chosen.source == "nano"
    pulled = pulled_directory(chosen.source, find_places(os.environ))
    named = "nano" if is_nano else os.fspath(pulled or base / Path(chosen.source).expanduser())
    source, destination = model_directory(named), base / chosen.destination.expanduser()
    calibration = None
    if chosen.calibrate is not None:
        if chosen.recipe == "native":
            raise UsageError("native rounds nothing; leave --calibrate out, or name another recipe")
        calibration = calibration_of(chosen.calibrate, base, source)
    made = _stoppable(source, destination, RECIPES[chosen.recipe], calibration)
    if isinstance(made, int):
        return made
    _tell(made, destination, chosen.recipe, as_json=chosen.json)
    return 0


def _stoppable(
    source: Path, destination: Path, recipe: Recipe, calibration: Calibration | None
) -> Converted | int:
    """What was made, or the exit code of the signal that stopped it."""
    from ds4_agent.engine.errors import Cancelled, DestinationError
    from ds4_agent.engine.weights.convert import convert

    meter = Meter(sys.stderr, time.monotonic)
    with Signals() as signals:

        def follow(progress: Progress) -> None:
            if signals.signum:
                raise Cancelled("stopped")
            meter.show(progress)

        signals.interrupt = lambda: None  # the next rows that are done see it
        try:
            return convert(source, destination, recipe, calibration=calibration, on_progress=follow)
        except DestinationError as error:
            raise UsageError(str(error)) from error
        except Cancelled:
            meter.end()
            warn("stopped; the same command goes on where it stopped")
            return 128 + signals.signum
        finally:
            meter.end()


def _tell(made: Converted, destination: Path, recipe: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "directory": os.fspath(destination),
                "recipe": recipe,
                "bytes": made.bytes,
                "files": made.files,
                "drafts_left_out": made.drafts,
                "was_finished": made.was_finished,
            }
        )
        return
    place = visible(os.fspath(destination))
    state = "was finished before" if made.was_finished else "is finished"
    print(f"{place} {state}: {recipe}, {shown_size(made.bytes)} of weights in {made.files} files")
    if made.drafts:
        print(f"left out: {made.drafts:,} tensors of draft layers")
    print(f"use it: ds4-agent model use {place}")


class Meter:
    """Progress on stderr: one line that changes on a terminal, a line a file elsewhere."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._changes = stream is not None and stream.isatty()
        self._begin: tuple[float, int] | None = None  # when, and what was done by then
        self._last: Progress | None = None
        self._shown_at = 0.0
        self._width = 0

    def show(self, progress: Progress) -> None:
        now, last = self._clock(), self._last
        if last is None or last.stage != progress.stage:
            self._begin = (now, progress.done)
        self._last = progress
        is_over = progress.done == progress.total
        if self._changes and (is_over or now - self._shown_at >= REFRESH):
            self._shown_at = now
            self._put(self._line(progress, now))
        elif not self._changes and last is not None and last.file != progress.file:
            self._put(self._line(last, now))

    def end(self) -> None:
        """The line on the terminal stays; the last file has its own."""
        if self._last is not None:
            if self._changes:
                self._write("\n")
            else:
                self._put(self._line(self._last, self._clock()))
        self._last = None

    def _line(self, progress: Progress, now: float) -> str:
        share = int(100 * progress.done / max(progress.total, 1))
        line = f"{progress.stage} {progress.file}  {share} %"
        if self._begin is not None:
            began, before = self._begin
            done = progress.done - before
            if done > 0 and progress.done < progress.total:
                left = (now - began) / done * (progress.total - progress.done)
                line += f", {_span(left)} left"
        return line

    def _put(self, line: str) -> None:
        if not self._changes:
            self._write(f"{line}\n")
            return
        self._write("\r" + line.ljust(self._width))
        self._width = len(line)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()


def _span(seconds: float) -> str:
    """`40 s`, `12 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
