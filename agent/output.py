"""What a headless run prints: `text`, `json` or `stream-json`.

In: events, then the end. Out: stdout has the answer, the object or the lines; stderr the activity.
Never a control byte of somebody else's on either, never ANSI at all, and only whole results.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from ds4_agent.agent import events as ev
from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.errors import OutputError, UsageError
from ds4_agent.agent.lines import Lines
from ds4_agent.agent.rules import subject

__all__ = [
    "Output",
    "check_writable",
    "json_text",
    "make_output",
    "print_text",
    "warn",
    "write_atomically",
]

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


def warn(text: str) -> None:
    """One line on stderr, whose loss nobody can be told about."""
    with suppress(OSError, ValueError):
        print(f"ds4-agent: {one_line(text, 2000)}", file=sys.stderr, flush=True)


def json_text(record: Mapping[str, Any]) -> str:
    """One line of JSON that any reader takes: lone surrogates are escaped, the rest is UTF-8."""
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_writable(path: Path) -> None:
    """Raise UsageError if `path` certainly cannot be written: before any work, not after."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory; -o needs a file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into {path.parent}")


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing. Raises OutputError, with no temporary file left."""
    data = text.encode("utf-8", "backslashreplace")
    temporary = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.tmp")
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe: nothing to replace
            path.write_bytes(data)
            return
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def print_text(text: str) -> None:
    """Text on stdout, at once; undecodable parts as escapes, whatever the locale."""
    if sys.stdout is None:
        raise OutputError("cannot write to standard output: it is closed")
    try:
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write to standard output: {reason}") from error


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


def _tell(text: str, stream: TextIO | None = None) -> None:
    with suppress(OSError, ValueError):
        print(text, file=stream or sys.stderr, flush=True)
