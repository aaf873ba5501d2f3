"""Runs a stranger's Python function so that it can harm nobody but itself.

In: a function, and when to stop waiting for it. Out: what it returned and what it printed, bounded.
What it raises, `sys.exit` too, is a ContainedError here. A function that does not come back is left
behind in its daemon thread, mute, and ended as soon as it runs Python again. Cannot hold what
bypasses Python: `os._exit`, writes to the descriptors 1 and 2, native code that never returns.
"""

from __future__ import annotations

import io
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TextIO, TypeVar

from ds4_agent.tools.output import HeadTail

T = TypeVar("T")

POLL_S = 0.05
GRACE_S = 0.3  # for a function that watches `cancel` itself to end by itself
SHOWN = 64 * 1024  # characters of one run that are handed on as they come


class ContainedError(Exception):
    """The function failed; the message names the error, its words and the line it came from."""

    def __init__(self, cause: BaseException, file: str) -> None:
        self.cause = cause
        super().__init__(told(cause, file))


class LeftBehindError(Exception):
    """Nobody waits for the function any more; its thread may still run."""


class _EndedError(BaseException):
    """Raised inside a function that was left behind; no `except Exception` of it holds that up."""


@dataclass
class Speech:
    """What one run says: kept within bounds, handed on to `listener` until that is enough."""

    listener: Callable[[str], None]
    kept: HeadTail = field(default_factory=HeadTail)
    is_mute: bool = False
    room: int = SHOWN

    def say(self, text: str) -> None:
        """Progress and prints alike."""
        if self.is_mute:  # nobody listens any more: what still runs may as well end
            raise _EndedError
        if self.room <= 0:
            return
        shown, self.room = text[: self.room], self.room - len(text)
        self.listener(shown if self.room > 0 else shown + "\n[… more is not shown …]\n")

    def print(self, text: str) -> None:
        self.kept.feed(text.encode("utf-8", "replace"))
        self.say(text)


def contained(
    function: Callable[[Speech], T],
    *,
    file: str,
    is_over: Callable[[], bool],
    on_output: Callable[[str], None] = lambda _text: None,
) -> tuple[T, str]:
    """(what `function` returns, what it printed). Raises ContainedError and LeftBehindError.

    `is_over()` is asked often: once it says yes, the function is waited for a moment and then left.
    `file` is the stranger's: an error is told with the line of it.
    """
    run: _Run[T] = _Run(Speech(on_output))
    thread = threading.Thread(target=run.body, args=(function,), name="ds4-plugin", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        if thread.is_alive() and is_over():
            thread.join(GRACE_S)
            if thread.is_alive():
                run.speech.is_mute = True
                _ask_to_end(thread)
                raise LeftBehindError
    if run.failure is not None:
        raise ContainedError(run.failure, file)
    return run.values[0], run.speech.kept.text()


def _ask_to_end(thread: threading.Thread) -> None:
    """A loop left behind would share the interpreter with the agent for ever: have it raise."""
    import ctypes

    identity = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(_EndedError))


def within(seconds: float) -> Callable[[], bool]:
    """An `is_over` that says yes after so many seconds."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def told(error: BaseException, file: str) -> str:
    """An error in one line: its kind, its words, the last line of `file` that it passed."""
    kind = type(error).__name__
    try:
        words = " ".join(str(error).split())
    except Exception:  # an error whose own text cannot be made
        words = ""
    if isinstance(error, SystemExit):
        kind, words = f"sys.exit({words})", ""
    if isinstance(error, SyntaxError):
        return f"{kind}: {error.msg} (line {error.lineno})"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{kind}: {words}{where}" if words else f"{kind}{where}"


@dataclass
class _Run(Generic[T]):
    speech: Speech
    values: list[T] = field(default_factory=list)
    failure: BaseException | None = None

    def body(self, function: Callable[[Speech], T]) -> None:
        try:
            with _heard(self.speech):
                self.values.append(function(self.speech))
        except BaseException as error:  # sys.exit in a plugin must not end the agent
            self.failure = error


_SPEAKER: ContextVar[Speech | None] = ContextVar("ds4_plugin_speech", default=None)
_STREAMS = ("stdin", "stdout", "stderr")
_LOCK = threading.Lock()
_ACTIVE: list[Speech] = []  # runs under way, those left behind among them


@contextmanager
def _heard(speech: Speech) -> Iterator[None]:
    """What this thread prints goes to `speech`, and it reads nothing: the keys are the agent's.
    The program's own streams stay what they were."""
    with _LOCK:
        for name in _STREAMS:  # each time: a screen may have put its own there since
            if not isinstance(getattr(sys, name), _Divided):
                setattr(sys, name, _Divided(getattr(sys, name)))
        _ACTIVE.append(speech)
    token = _SPEAKER.set(speech)
    try:
        yield
    finally:
        _SPEAKER.reset(token)
        with _LOCK:
            _ACTIVE.remove(speech)
            for name in () if _ACTIVE else _STREAMS:
                if isinstance(stream := getattr(sys, name), _Divided):
                    setattr(sys, name, stream.under)


def _speaker() -> Speech | None:
    """Whose print this is: the run of this context, or for a thread that a plugin started itself
    (it has a context of its own) the newest run."""
    speech = _SPEAKER.get()
    if speech is not None:
        return speech
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread.name.startswith("ds4-"):
        return None
    return _ACTIVE[-1] if _ACTIVE else None


class _Divided(io.TextIOBase):
    """A stream that is a plugin's speech where a plugin writes, empty where it reads, and what was
    there before for everybody else."""

    def __init__(self, under: TextIO | None) -> None:
        self.under = under

    def write(self, text: str) -> int:
        speech = _speaker()
        if speech is not None:
            speech.print(text)
            return len(text)
        return len(text) if self.under is None else self.under.write(text)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        return "" if self.under is None or _speaker() is not None else self.under.readline(size)

    def read(self, size: int | None = -1, /) -> str:
        return "" if self.under is None or _speaker() is not None else self.under.read(size or -1)

    def flush(self) -> None:
        if self.under is not None and _speaker() is None:
            self.under.flush()

    def fileno(self) -> int:
        if self.under is None or _speaker() is not None:
            raise io.UnsupportedOperation("fileno")
        return self.under.fileno()

    def isatty(self) -> bool:
        return self.under is not None and _speaker() is None and self.under.isatty()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.under, "encoding", None) or "utf-8"

    @property
    def buffer(self) -> Any:
        return self.under.buffer if self.under and _speaker() is None else _Bytes(self)


class _Bytes(io.RawIOBase):
    """`buffer` of a plugin's streams."""

    def __init__(self, text: _Divided) -> None:
        self._text = text

    def write(self, data: Any) -> int:
        self._text.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def writable(self) -> bool:
        return True
