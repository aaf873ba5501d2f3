"""What a headless run prints: `text`, `json` or `stream-json`.

In: events, then the end. Out: stdout has the answer, the object or the lines; stderr the activity.
Never a control byte of somebody else's on either, never ANSI at all, and only whole results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ds4_agent.agent import events as ev
from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.lines import Lines
from ds4_agent.agent.printing import json_text, print_text, warn
from ds4_agent.agent.rules import subject

__all__ = ["Output", "make_output"]

PREFILL_EVERY = 2.0  # seconds between two lines about a long prefill


class Output(Protocol):
    """One way to print a run. Raises OutputError when stdout cannot be written."""

    def event(self, event: ev.Event) -> None: ...

    def end(self, result: Mapping[str, Any]) -> str:
        """Print the end of the run; returns what `-o FILE` gets."""
        ...


def make_output(kind: str, *, verbose: bool) -> Output:
    """The output for `--output-format kind`."""
    if kind == "json":
        return _JsonOutput()
    if kind == "stream-json":
        return _StreamOutput()
    return _TextOutput(time.monotonic, verbose)


class _JsonOutput:
    def event(self, event: ev.Event) -> None:
        if isinstance(event, ev.Notice):
            warn(event.text)

    def end(self, result: Mapping[str, Any]) -> str:
        text = json_text(result)
        print_text(text)
        return text + "\n"


class _StreamOutput:
    def __init__(self) -> None:
        self._lines = Lines()

    def event(self, event: ev.Event) -> None:
        if isinstance(event, ev.TurnEnded):  # told by `end`, which knows how the process ends
            return
        for line in self._lines.feed(event):
            print_text(json_text(line))

    def end(self, result: Mapping[str, Any]) -> str:
        text = json_text(result)
        print_text(text)
        return text + "\n"


class _TextOutput:
    """Activity as it comes on stderr; the answer, once it is certain, on stdout."""

    def __init__(self, clock: Callable[[], float], verbose: bool) -> None:
        self._clock = clock
        self._verbose = verbose
        self._said = clock()
        self._text = ""
        self._thinking = ""

    def event(self, event: ev.Event) -> None:
        match event:
            case ev.Notice(text):
                warn(text)
            case ev.PrefillProgressed(done, total) if done < total:
                if self._clock() - self._said > PREFILL_EVERY:
                    _tell(f"reading {done:,} of {total:,} tokens")
                    self._said = self._clock()
            case ev.ThinkingDelta(text) if self._verbose:
                self._thinking += text
            case ev.TextDelta(text):
                self._text += text
            case ev.CallReady(_, name, arguments):
                self._flush()
                _tell(f"{name} {one_line(subject(name, arguments))}".rstrip())
            case ev.ApprovalDecided(request, decision) if decision.behaviour == "deny":
                _tell(f"  refused {request.tool}: {one_line(decision.reason or 'no')}")
            case ev.CallFinished(_, _, content, is_error):
                first = one_line(content.partition("\n")[0])
                _tell(f"  {first}" if is_error or first else "  done")
            case ev.TaskEvent(task, ev.CallReady(_, name, arguments)):
                _tell(f"  {task}: {name} {one_line(subject(name, arguments))}".rstrip())
            case ev.StepStarted():
                self._text = ""
                self._said = self._clock()
            case _:
                pass

    def end(self, result: Mapping[str, Any]) -> str:
        self._tell_thinking()
        if result["subtype"] == "error":  # the error itself stands on stderr
            return ""
        answer = visible(str(result["result"]))
        if answer:
            print_text(answer)
        return str(result["result"]) + "\n" if answer else ""

    def _flush(self) -> None:
        """What the model says beside a call is activity, not the answer."""
        self._tell_thinking()
        if self._text.strip():
            _tell(visible(self._text.strip()))
        self._text = ""

    def _tell_thinking(self) -> None:
        if self._thinking.strip():
            _tell(visible(self._thinking.strip()))
        self._thinking = ""


def _tell(text: str) -> None:
    if sys.stderr is None:  # closed: print would take stdout instead
        return
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
