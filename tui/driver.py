"""The terminal under the screen: Textual's Linux and macOS driver with its three gaps closed.

Bytes that are not UTF-8 are shown as U+FFFD instead of ending the app; a terminal that is gone
(end of file, EIO) ends the app instead of spinning at full load; SIGTERM, SIGHUP and SIGQUIT
restore the terminal and end with 128+n.
"""

import asyncio
import os
import selectors
import signal
from codecs import getincrementaldecoder
from collections.abc import Callable

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

__all__ = ["TerminalDriver", "leave_on_signals"]

_POLL = 0.1  # seconds; the parser tells Esc from an escape sequence by this tick
_READ = 4096


class TerminalDriver(LinuxDriver):
    """Reads keys until the terminal ends, then tells the app once through `app.terminal_lost()`."""

    def run_input_thread(self) -> None:
        """Feed what the terminal sends to the app; returns on exit or when the terminal is gone."""
        # textual 8.2 decodes strictly and takes an empty read for "nothing yet"; hence not super().
        parser = XTermParser(self._debug)
        decoder = getincrementaldecoder("utf-8")(errors="replace")
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            typed_before = bool(selector.select(0))
            while not self.exit_event.is_set():
                if selector.select(_POLL):
                    received = _read(self.fileno)
                    if not received:
                        self._tell_lost()
                        return
                    if typed_before:  # the terminal still turned Enter into a line feed
                        received = received.replace(b"\n", b"\r")
                    for message in parser.feed(decoder.decode(received)):
                        self.process_message(message)
                typed_before = False
                for message in parser.tick():
                    self.process_message(message)

    def _tell_lost(self) -> None:
        lost: Callable[[], None] | None = getattr(self._app, "terminal_lost", None)
        if lost is not None:
            self._loop.call_soon_threadsafe(lost)


def leave_on_signals(loop: asyncio.AbstractEventLoop, leave: Callable[[int], None]) -> None:
    """Call `leave(128 + n)` in `loop` on SIGTERM, SIGHUP and SIGQUIT."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        loop.add_signal_handler(number, leave, 128 + number)


def _read(descriptor: int) -> bytes:
    """The next bytes, or b"" when there is no terminal any more."""
    try:
        return os.read(descriptor, _READ)
    except OSError:  # EIO: the other side of the pty is closed
        return b""
