"""The only place that starts processes.

In: an argument list and a directory. Out: a Job whose output is read as it comes and whose end is
known without asking. Each command runs in a session of its own under a supervisor: a timeout, a
cancel, `close()` and the death of the agent (by SIGKILL too) leave none of its processes behind.
Never waits for the end of a pipe that an escaped process holds open.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from ds4_agent.tools.output import Output

SUPERVISOR = Path(__file__).with_name("supervisor.py")
DROPPED = ("BASH_ENV", "ENV", "VIRTUAL_ENV", "PROMPT_COMMAND", "SHELLOPTS", "BASHOPTS", "CDPATH")
# MAKE…: an agent started by make is no part of that make; `make` below it would say otherwise.
DROPPED_PREFIXES = ("LD_", "DYLD_", "GIT_", "PYTHON", "BASH_FUNC_", "MAKE", "MFLAGS")
CANCEL_POLL_S = 0.04
DRAIN_S = 0.2  # after the end: only what is in the pipe already is read
HURRY_S = 0.3
SETTLE_S = 6.0  # longer than a supervisor tries to kill a command
CHUNK = 64 * 1024

Ending = Literal["exited", "timed out", "stopped"]


@dataclass(frozen=True)
class Ended:
    """How a process ended. `left_running`: others of its command had to be stopped after it."""

    how: Ending
    code: int
    left_running: bool = False


class Job:
    """One running or ended command. `ended` is None while it runs."""

    def __init__(
        self, process: subprocess.Popen[bytes], source: int, output: Output, timeout: float | None
    ) -> None:
        self.output = output
        self.done = threading.Event()
        self.ended: Ended | None = None
        self._process = process
        self._source = source
        self._ending: Ending = "exited"
        self._lock = threading.Lock()
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._thread = threading.Thread(target=self._follow, name="ds4-job", daemon=True)
        self._thread.start()

    @property
    def is_ending(self) -> bool:
        """It was asked to end, and something of it may still run."""
        return self._ending != "exited" and not self.done.is_set()

    def stop(self, how: Ending = "stopped", *, at_once: bool = False) -> None:
        """Ask for the end of the command and all its processes; returns at once."""
        with self._lock:
            if self.done.is_set():
                return
            if self._ending == "exited":
                self._ending = how
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.write(b"K" if at_once else b"T")

    def wait(self, cancel: threading.Event, on_output: Callable[[str], None] | None = None) -> bool:
        """Wait for the end, passing on output as it comes; False when cancelled before it.

        A cancelled job is asked to end and left to its supervisor: the caller goes on at once.
        """
        while not self.done.wait(CANCEL_POLL_S):
            if cancel.is_set():
                self.stop()
                self.done.wait(CANCEL_POLL_S)
                return False
            if on_output and (text := self.output.fresh()):
                on_output(text)
        if on_output and (text := self.output.fresh()):
            on_output(text)
        return True

    def _follow(self) -> None:
        """The job's thread: reads, keeps the time, and knows the end."""
        report = b""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self._source, selectors.EVENT_READ)
            ready.register(self._process.stdout, selectors.EVENT_READ)
            over = False
            while not over:
                for key, _ in ready.select(self._pause()):
                    if key.fileobj is self._process.stdout:
                        report, over = self._process.stdout.read() or b"", True
                    elif not self._read_chunk():
                        ready.unregister(self._source)
                self._enforce_time()
            self._drain(ready)
        self._finish(report)

    def _pause(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _enforce_time(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            self.stop("timed out")

    def _drain(self, ready: selectors.BaseSelector) -> None:
        until = time.monotonic() + DRAIN_S
        with suppress(KeyError):
            ready.unregister(self._process.stdout)  # type: ignore[arg-type]
        while ready.get_map() and time.monotonic() < until:
            if not ready.select(0) or not self._read_chunk():
                return

    def _read_chunk(self) -> bool:
        data = os.read(self._source, CHUNK)
        self.output.feed(data)
        return bool(data)

    def _finish(self, report: bytes) -> None:
        with self._lock:
            os.close(self._source)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            words = report.split()
            code, left = (int(words[0]), words[1] == b"1") if len(words) == 2 else (137, False)
            self.ended = Ended(self._ending, code, left and self._ending == "exited")
            self.output.close()
            self.done.set()


class Processes:
    """All processes of one agent. `jobs` holds the background ones by their number."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.jobs: dict[int, Job] = {}
        self._running: set[Job] = set()
        self._environment = scrubbed(os.environ if environment is None else environment)
        name = f"ds4-agent-{os.getpid()}-{secrets.token_hex(6)}"
        self._output_directory = Path(tempfile.gettempdir(), name)
        self._spilled = 0
        self._lock = threading.Lock()
        self._closed = False

    def start(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        timeout: float | None = None,
        input_bytes: bytes = b"",
        output: Output | None = None,
    ) -> Job:
        """Start a command. Raises OSError where the system cannot (directory gone, no memory)."""
        with self._lock:
            if self._closed:
                raise OSError("the agent is ending")
            job = self._spawn(command, directory, timeout, input_bytes, output)
            self._running = {other for other in self._running if not other.done.is_set()} | {job}
            return job

    def start_background(
        self, command: Sequence[str], directory: Path, *, timeout: float | None = None
    ) -> int:
        """Start a command that goes on by itself; returns its number, counted from 1."""
        job = self.start(command, directory, timeout=timeout)
        with self._lock:
            number = len(self.jobs) + 1
            self.jobs[number] = job
            return number

    def settle(self) -> None:
        """Have an end of the commands that were asked to end: nothing of them changes a file when
        this returns. Those that do not hurry are killed."""
        with self._lock:
            ending = [job for job in self._running if job.is_ending]
        for job in ending:
            if not job.done.wait(HURRY_S):
                job.stop(at_once=True)
                job.done.wait(SETTLE_S)

    def close(self) -> None:
        """End every process and remove the files of long outputs. Takes under a second."""
        with self._lock:
            self._closed = True
            running = [job for job in self._running if not job.done.is_set()]
        for at_once, patience in ((False, 0.3), (True, 0.6)):
            until = time.monotonic() + patience
            for job in running:
                job.stop(at_once=at_once)
            for job in running:
                job.done.wait(max(0.0, until - time.monotonic()))
        shutil.rmtree(self._output_directory, ignore_errors=True)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(
        self,
        command: Sequence[str],
        directory: Path,
        timeout: float | None,
        input_bytes: bytes,
        output: Output | None,
    ) -> Job:
        source, sink = os.pipe()
        try:
            with _input_file(input_bytes) as stdin:
                process = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", str(SUPERVISOR)),
                        *(str(sink), str(stdin.fileno()), *command),
                    ],
                    cwd=directory,
                    env={**self._environment, "DS4_OUTPUT": str(self._output_directory)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    pass_fds=(sink, stdin.fileno()),
                    start_new_session=True,
                )
        except BaseException:
            os.close(source)
            raise
        finally:
            os.close(sink)
        return Job(process, source, output or Output(self._spill), timeout)

    def _spill(self) -> Path | None:
        """A file for an output too long to show; the directory is made with the first one."""
        try:
            _sweep(self._output_directory.parent)
            self._output_directory.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            return None
        self._spilled += 1
        return self._output_directory / f"output-{self._spilled}.txt"


def run_on_terminal(command: Sequence[str]) -> int:
    """Run a program of the user's choice on this process's terminal, with the user's environment;
    returns its exit code. Ctrl+C is the program's meanwhile. Raises OSError.

    From the main thread, and only for what the user named: nothing the model says comes here.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which would be inherited
    try:
        return subprocess.run(list(command), check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: the user's, less what would make a shell, the loader, git or
    Python run something else than the command says, and less the agent's own Python settings.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name not in DROPPED and not name.startswith(DROPPED_PREFIXES)
    }
    # Nobody sits at a terminal: no pager, no password prompt, no colours.
    return kept | {
        "DS4_AGENT": "1",
        "TERM": "dumb",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
    }


def find_program(name: str, workspace: Path) -> str | None:
    """The absolute path of a program on PATH; one that lies in the workspace is not the user's."""
    for entry in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which(name, path=entry) if os.path.isabs(entry) else None
        if found and not Path(os.path.realpath(found)).is_relative_to(workspace):
            return found
    return None


@contextmanager
def _input_file(data: bytes) -> Iterator[IO[bytes]]:
    """What the command reads on stdin: nothing, or a nameless file (a pipe could block both)."""
    if not data:
        with open(os.devnull, "rb") as nothing:
            yield nothing
        return
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def _sweep(directory: Path) -> None:
    """Remove the output files of agents that were killed before they could."""
    for left in directory.glob("ds4-agent-*-*"):
        pid = left.name.split("-")[2]
        with suppress(OSError):  # another agent sweeps at the same time
            if pid.isdigit() and left.lstat().st_uid == os.getuid() and not is_alive(int(pid)):
                shutil.rmtree(left, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
