"""Whether there is a terminal, of what kind, and leaving it as it was found.

In: the process's streams and environment. Out: a sentence why no screen can open, a choice of
screen, and a guarantee that the process ends. Imports neither Textual nor prompt_toolkit.
"""

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TextIO

__all__ = ["end_process_soon", "is_full_terminal", "kept_terminal", "refusal"]

LEAVE_WITHIN = 4.0  # seconds from the wish to end until the process is ended without being asked
_DUMB = ("", "dumb", "unknown", "emacs")


def refusal(stdin: TextIO | None, stdout: TextIO | None) -> str:
    """Why nobody could talk to the agent here, in one line; "" when somebody can."""
    for name, stream in (("stdin", stdin), ("stdout", stdout)):
        if stream is None or not stream.isatty():
            return f"{name} is not a terminal; use -p PROMPT to run without a screen"
    return ""


def is_full_terminal(environment: Mapping[str, str], stderr: TextIO | None) -> bool:
    """Whether the full screen can be drawn. Textual draws on stderr."""
    if environment.get("TERM", "").lower() in _DUMB:
        return False
    return stderr is not None and stderr.isatty()


@contextmanager
def kept_terminal() -> Iterator[None]:
    """Put the terminal's settings back as they were, however the block ends."""
    import termios

    descriptor = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error:
        yield
        return
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def end_process_soon(code: int) -> None:
    """End this process with `code` in a few seconds unless it ends by itself.

    A terminal that is gone blocks whoever still writes to it, and a thread may hang in a driver.
    """
    timer = threading.Timer(LEAVE_WITHIN, os._exit, (code,))
    timer.daemon = True
    timer.start()
