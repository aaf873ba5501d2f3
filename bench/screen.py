"""Measures the screen as a reader meets it: the real command on a pseudo-terminal, keys typed and
awaited in its output, on the bundled model and on scripted ones.
`python -m bench.screen` prints one JSON list of table rows. Writes only into a temporary directory.
"""

import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ds4_agent.agent.build import RunOptions, build_agent
from ds4_agent.agent.config import Settings
from ds4_agent.agent.places import find_places

SIZE = (36, 120)  # rows, columns
KEYS = 150
FIRST_LETTER = 0xC0  # the typed letters: none is typed twice or written by anything else
ALTERNATE = "\x1b[?1049h"  # from here on the screen is ours
RATE = 60  # tokens a second
TURNS = 5000  # of the long session: two messages each
REPEATS = 5
PATIENCE = 120.0  # seconds for anything

Row = list[str]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ds4-bench-") as place:
        directory = Path(place)
        os.environ["DS4_HOME"] = str(directory / "home")
        project = directory / "project"
        project.mkdir()
        rows = [*starting(project), *streaming(project, directory), *prefilling(project)]
        rows += long_session(project, directory)
    print(json.dumps(rows))


def starting(project: Path) -> list[Row]:
    """How long until the command answers, and until it takes the first key."""
    helps, firsts = [], []
    command = [sys.executable, "-m", "ds4_agent.agent.cli", "--help"]
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=project)
        helps.append(time.perf_counter() - began)
        began = time.perf_counter()
        with terminal(project) as screen:
            screen.type(chr(FIRST_LETTER))  # typed before anything is there to read it
            screen.wait_for(ALTERNATE)  # what the terminal echoed before is no paint of ours
            screen.wait_for(chr(FIRST_LETTER))
            firsts.append(time.perf_counter() - began)
    return [
        _below("screen: --help, ms", 1e3 * min(helps), 150),
        _below("screen: command to first keystroke, ms", 1e3 * min(firsts), 400),
    ]


def streaming(project: Path, directory: Path) -> list[Row]:
    """Keys typed while the model writes Markdown with code, and what painting it costs."""
    script = directory / "script.jsonl"
    script.write_text(
        json.dumps({"text": _markdown(), "delay_ms": 1000 / RATE}) + "\n", encoding="utf-8"
    )
    with terminal(project, "--model", f"scripted:{script}", "go") as screen:
        screen.wait_for("step")
        used, began = screen.cpu_seconds(), time.perf_counter()
        delays = screen.typed(KEYS)
        # What is typed costs, too; the share is of the stream alone.
        passed = time.perf_counter() - began
        with_keys = (screen.cpu_seconds() - used) / passed
        used, began = screen.cpu_seconds(), time.perf_counter()
        screen.read_for(10.0)
        alone = (screen.cpu_seconds() - used) / (time.perf_counter() - began)
        megabytes = screen.megabytes()
    return [
        _below(f"screen: key to paint at {RATE} tokens/s, p95 ms", 1e3 * _p95(delays), 50),
        _below(f"screen: CPU at {RATE} tokens/s, % of a core", 100 * alone, 15),
        ["… while typing 15 keys a second", f"{100 * with_keys:.1f}", "", "", "", ""],
        ["… memory, MB", f"{megabytes:.0f}", "", "", "", ""],
    ]


def prefilling(project: Path) -> list[Row]:
    """Keys typed while the bundled model reads a long prompt."""
    rng = random.Random(1)
    words = " ".join(rng.choice(("read", "the", "file", "and", "edit", "x")) for _ in range(30_000))
    (project / "AGENTS.md").unlink(missing_ok=True)
    with terminal(project, words) as screen:
        screen.wait_for("prefill")
        delays = screen.typed(KEYS)
        assert not screen.has_ended_turn(), "the prompt was read before the last key"
    return [_below("screen: key to paint while prefilling, p95 ms", 1e3 * _p95(delays), 50)]


def long_session(project: Path, directory: Path) -> list[Row]:
    """A session of 10,000 messages, from the command until its end can be read and typed under."""
    script = directory / "long.jsonl"
    with script.open("w", encoding="utf-8") as file:
        for turn in range(TURNS):
            file.write(json.dumps({"text": f"Answer number {turn} with `code` in it."}) + "\n")
        file.write(json.dumps({"text": "-"}) + "\n")
    model = f"scripted:{script}"
    places = find_places(dict(os.environ))
    options = RunOptions(Settings(model=model), project, places)
    agent = build_agent(options)
    for turn in range(TURNS):
        for _ in agent.run(f"prompt {turn}"):
            pass
    agent.close()
    opened, fresh, sizes = [], [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        with terminal(project, "--model", model, "-c") as screen:
            screen.wait_for(f"number {TURNS - 1}")
            opened.append(time.perf_counter() - began)
            screen.typed(3)
            sizes.append(screen.megabytes())
        began = time.perf_counter()
        with terminal(project, "--model", model, "--no-session") as screen:
            screen.wait_for("ready")
            fresh.append(time.perf_counter() - began)
    whole, empty = min(opened), min(fresh)
    return [
        _below("screen: session of 10,000 messages opens, ms", 1e3 * (whole - empty), 500),
        ["… from the command on, ms", f"{1e3 * whole:.0f}", "", "", "", ""],
        ["… memory, MB", f"{min(sizes):.0f}", "", "", "", ""],
    ]


class Screen:
    """The command on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._received = bytearray()

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Until the text is painted. Ends the measurement where it never is."""
        wanted, deadline = text.encode(), time.monotonic() + PATIENCE
        while (place := self._received.find(wanted)) < 0:
            if time.monotonic() > deadline or not self._read(0.5):
                raise SystemExit(f"bench: the screen never showed {text!r}")
        del self._received[: place + len(wanted)]

    def typed(self, keys: int) -> list[float]:
        """Seconds from each key until its letter is painted."""
        rng, delays = random.Random(keys), []
        for index in range(1, keys + 1):
            self.read_for(rng.uniform(0.02, 0.08))
            letter = chr(FIRST_LETTER + index)
            del self._received[:]
            began = time.perf_counter()
            self.type(letter)
            self.wait_for(letter)
            delays.append(time.perf_counter() - began)
        return delays

    def read_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._read(left)

    def has_ended_turn(self) -> bool:
        return b"ready" in self._received

    def cpu_seconds(self) -> float:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text("ascii")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Resident now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _read(self, seconds: float) -> bool:
        """False once the command has ended."""
        if not select.select([self._master], [], [], seconds)[0]:
            return self.process.poll() is None
        try:
            piece = os.read(self._master, 1 << 16)
        except OSError:
            return False
        self._received += piece
        return bool(piece)


@contextmanager
def terminal(project: Path, *arguments: str) -> Iterator[Screen]:
    """Run the command on a new terminal; end it with a signal behind the block."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, SIZE)
    process = subprocess.Popen(
        [sys.executable, "-m", "ds4_agent.agent.cli", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=project,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
    )
    os.close(slave)
    screen = Screen(process, master)
    try:
        yield screen
    finally:
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            screen.read_for(0.05)
        os.close(master)


def _markdown() -> str:
    """Some minutes of an answer as models write them."""
    step = (
        "## step {0}\n\nThe *client* waits **longer** after each failure, see `src/client.py`:\n\n"
        "1. the limit is a field\n2. nothing else was touched\n\n```python\ndef wait{0}(attempt):\n"
        '    """How long."""\n    return min(60.0, 0.5 * 2**attempt)\n```\n\n'
    )
    return "".join(step.format(number) for number in range(60))


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


def _below(name: str, figure: float, bar: float) -> Row:
    return [name, f"{figure:,.1f}", "", "", f"< {bar:g}", "met" if figure < bar else "MISSED"]


if __name__ == "__main__":
    main()
