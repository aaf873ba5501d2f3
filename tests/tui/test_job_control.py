"""The real command under a shell's job control: suspended, taken up again, resized; what the
terminal then shows is judged by a terminal emulator."""

import os
import pty
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

PATIENCE = 300.0  # seconds; the machine may be busy
SMALL, LARGE = (24, 80), (30, 100)
# A shell in small: it leads the terminal's session, gives its job the terminal, takes it back when
# the job stops (saying so), and goes on with it at a line of input. Ends as the job ends.
SHELL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "ds4_agent.agent.cli", *sys.argv[1:]])
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    print("job stopped", flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
"""


class Emulated:
    """A terminal whose screen can be read."""

    def __init__(self, shell: int, master: int) -> None:
        self.shell, self.master = shell, master
        self._screen = pyte.Screen(SMALL[1], SMALL[0])
        self._stream = pyte.ByteStream(self._screen)
        self.received = bytearray()

    def wait_until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """The screen's lines once they are so."""
        deadline = time.monotonic() + PATIENCE
        while not holds(lines := self._screen.display):
            assert time.monotonic() < deadline, "\n".join(lines)
            if select.select([self.master], [], [], 0.1)[0]:
                piece = os.read(self.master, 1 << 16)
                self.received += piece
                self._stream.feed(piece)
        return lines

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def resize(self, size: tuple[int, int]) -> None:
        """The kernel tells the foreground job of it, with SIGWINCH."""
        termios.tcsetwinsize(self.master, size)
        self._screen.resize(*size)


@pytest.fixture
def terminal(repo: Path, tmp_path: Path, script, stage) -> Iterator[Emulated]:
    model = script(stage.say("Hello from the model."), stage.say("And once more."))
    kept = {n: os.environ[n] for n in ("PATH", "HOME", "PYTHONPATH") if n in os.environ}
    environment = {**kept, "TERM": "xterm-256color", "DS4_HOME": str(tmp_path / "home")}
    arguments = [sys.executable, "-c", SHELL, "--model", model]
    shell, master = pty.fork()
    if not shell:
        os.chdir(repo)
        os.execve(sys.executable, arguments, environment)
    termios.tcsetwinsize(master, SMALL)
    yield Emulated(shell, master)
    os.close(master)  # hangs up: the shell's job ends, and the shell
    deadline = time.monotonic() + PATIENCE
    while not os.waitpid(shell, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(shell, signal.SIGKILL)
        time.sleep(0.05)


def shows(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(text in line for line in lines)


def test_suspended_it_leaves_the_screen_and_goes_on_where_it_was(terminal: Emulated) -> None:
    terminal.wait_until(shows("ready"))
    terminal.type(b"hi\r")
    terminal.wait_until(shows("Hello from the model."))
    terminal.type(b"half a prompt")
    terminal.wait_until(shows("half a prompt"))
    terminal.type(b"\x1a")
    terminal.wait_until(shows("job stopped"))
    assert terminal.received.rindex(b"\x1b[?1049l") < terminal.received.rindex(b"job stopped")
    del terminal.received[:]
    terminal.type(b"\n")
    terminal.wait_until(lambda _: b"\x1b[?1049h" in terminal.received)
    terminal.wait_until(lambda lines: shows("half a prompt")(lines) and shows("Hello")(lines))
    terminal.type(b"\r")
    terminal.wait_until(shows("And once more."))


def test_a_resize_lays_everything_out_anew(terminal: Emulated) -> None:
    terminal.wait_until(shows("ready"))
    terminal.type(b"hi\r")
    terminal.wait_until(shows("Hello from the model."))
    for rows, columns in (LARGE, (15, 40), SMALL):
        terminal.resize((rows, columns))
        lines = terminal.wait_until(
            lambda lines, rows=rows, columns=columns: (
                shows("─" * (columns - 4))(lines)
                and shows("Hello from the model.")(lines)
                and bool("".join(lines[rows - 1 :]).strip())
            )
        )
        assert (len(lines), len(lines[0])) == (rows, columns)
