"""`ds4-agent -p`: one prompt without a screen, then exit.

In: what the command line asked for. Out: the exit code; the answer on stdout. However the run ends,
the session log is on disk, `json` formats end with a result object, and an error is one line.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.build import RunOptions, build_agent
from ds4_agent.agent.errors import OutputError, PullError, UsageError
from ds4_agent.agent.events import (
    Event,
    RunStarted,
    StepFinished,
    StepStarted,
    TaskEvent,
    TurnEnded,
    Usage,
)
from ds4_agent.agent.lines import exit_code, result_line
from ds4_agent.agent.output import Output, make_output
from ds4_agent.agent.printing import check_writable, sole_stdout, warn, write_atomically
from ds4_agent.agent.progress import LoadLine
from ds4_agent.agent.prompt_input import compose_prompt, read_stdin
from ds4_agent.agent.signals import Signals
from ds4_agent.agent.slowness import slowness_lines
from ds4_agent.agent.user_commands import as_prompt

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent

__all__ = ["HeadlessRequest", "run_headless"]

USAGE, INFRASTRUCTURE = 1, 2


@dataclass(frozen=True)
class HeadlessRequest:
    """A headless run. `words` are the prompt's arguments, `@file` ones among them."""

    options: RunOptions
    words: Sequence[str]
    output_format: str = "text"
    output_file: Path | None = None
    verbose: bool = False


@dataclass
class _Progress:
    """What is known of the run so far: enough for a result, whenever it ends."""

    began: float = field(default_factory=time.monotonic)
    session_id: str = ""
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    ended: TurnEnded | None = None
    save: Callable[[], None] = lambda: None

    def note(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.session_id = event.session_id
            case StepStarted():
                self.steps = event.step
            case StepFinished(usage) | TaskEvent(_, StepFinished(usage)):
                self.usage += usage
            case TurnEnded():
                self.ended = event
            case _:
                pass

    def failed(self, message: str) -> dict[str, Any]:
        seconds = time.monotonic() - self.began
        ended = TurnEnded("end", message, self.usage, self.steps, seconds, "error")
        return result_line(ended, self.session_id) | {"subtype": "error", "is_error": True}

    def aborted(self) -> dict[str, Any]:
        told = {"subtype": "aborted", "result": "", "stop_reason": "interrupted by a signal"}
        return self.failed("") | told


def run_headless(request: HeadlessRequest) -> int:
    """Run to the end; returns the exit code. Raises OutputError if nothing can be printed."""
    output = make_output(request.output_format, verbose=request.verbose)
    progress = _Progress()
    with sole_stdout(), Signals() as signals:
        signals.last_words = partial(_last_words, request, output, progress)
        result, code = _attempt(request, output, progress, signals)
        signals.last_words = None
        signals.interrupt = lambda: None  # from here on there is only the result to write
        text = output.end(result)
        if request.output_file is not None and text and code != USAGE:
            write_atomically(request.output_file, text)
        return code


def _attempt(
    request: HeadlessRequest, output: Output, progress: _Progress, signals: Signals
) -> tuple[dict[str, Any], int]:
    """The result and exit code of the run, errors included."""
    from ds4_agent.engine.errors import ContextFullError, EngineError

    try:
        ended = _run(request, output, progress, signals)
    except (UsageError, ContextFullError) as error:
        return _failure(request, progress, error), USAGE
    except EngineError as error:
        return _failure(request, progress, error), INFRASTRUCTURE
    if ended.reason != "end":
        warn(ended.detail)
    code = 128 + signals.signum if signals.signum else exit_code(ended.reason)
    return result_line(ended, progress.session_id), code


def _run(
    request: HeadlessRequest, output: Output, progress: _Progress, signals: Signals
) -> TurnEnded:
    if request.output_file is not None:
        check_writable(request.output_file)
    options = request.options
    has_prompt = any(not word.startswith("@") for word in request.words)
    piped = read_stdin(sys.stdin.buffer, has_prompt, warn) if sys.stdin is not None else ""
    meant = partial(as_prompt, directory=options.directory, places=options.places)
    prompt = compose_prompt(request.words, options.directory, piped, meant)
    with closing(LoadLine()) as loading:
        agent = build_agent(options, on_load=loading)
    try:
        ended = _follow(agent, prompt, output, progress, signals)
        if request.verbose:
            for line in slowness_lines(ended.usage, *agent.slowness()):
                warn(line)
        return ended
    finally:
        agent.close()


def _follow(
    agent: Agent, prompt: str, output: Output, progress: _Progress, signals: Signals
) -> TurnEnded:
    progress.save = agent.save
    signals.interrupt = agent.interrupt
    for event in agent.run(prompt):
        if signals.signum:  # one that came before the run began to listen
            agent.interrupt()
        progress.note(event)
        output.event(event)
    if progress.ended is None:
        raise AssertionError("a run ends with TurnEnded")
    return progress.ended


def _last_words(request: HeadlessRequest, output: Output, progress: _Progress) -> None:
    """Before the process ends at once: the session's last ids, and the result."""
    progress.save()
    if request.output_format != "text":
        output.end(progress.aborted())


def _failure(request: HeadlessRequest, progress: _Progress, error: Exception) -> dict[str, Any]:
    if request.verbose:
        traceback.print_exception(error)
    warn(str(error))
    return progress.failed(str(error))


def report(error: Exception, *, verbose: bool) -> int:
    """Tell an error that ended the program as one line; returns its exit code."""
    from ds4_agent.engine.errors import EngineError

    if verbose:
        traceback.print_exception(error)
    if isinstance(error, UsageError):
        warn(str(error))
        return USAGE
    if isinstance(error, OutputError | PullError | EngineError):
        warn(str(error))
        return INFRASTRUCTURE
    warn(f"internal error: {type(error).__name__}: {error}; -v shows where")
    return INFRASTRUCTURE
