"""Processes: what is started ends, in time, with all its children; nothing is inherited or left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ds4_agent.tools import process as process_module
from ds4_agent.tools.process import Job, Processes, scrubbed

NEVER = threading.Event()
BASH = ("/bin/bash", "--noprofile", "--norc", "-c")


@pytest.fixture
def processes() -> Iterator[Processes]:
    with Processes() as processes:
        yield processes


@pytest.fixture
def run(processes: Processes, tmp_path: Path) -> Callable[..., Job]:
    def run(command: str, **options: object) -> Job:
        job = processes.start([*BASH, command], tmp_path, **options)  # type: ignore[arg-type]
        assert job.wait(NEVER)
        return job

    return run


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_exit_code_and_merged_output(run) -> None:
    job = run("echo out; echo err >&2; exit 3")
    assert (job.ended.how, job.ended.code) == ("exited", 3)
    assert job.output.text() == "out\nerr\n"


def test_a_signal_is_the_shells_exit_code(run) -> None:
    assert run("kill -9 $$").ended.code == 137


def test_a_program_that_is_not_there(processes, tmp_path) -> None:
    job = processes.start(["/no/such/program"], tmp_path)
    assert job.wait(NEVER)
    assert job.ended.code == 127
    assert job.output.text() == "/no/such/program: No such file or directory\n"


def test_a_directory_that_is_not_there(processes, tmp_path) -> None:
    with pytest.raises(OSError, match="No such file"):
        processes.start(["/bin/true"], tmp_path / "gone")


def test_stdin_is_empty_and_there_is_no_terminal(run) -> None:
    assert run("cat; tty; test -e /dev/tty && : 2>&1 </dev/tty").output.text().startswith("not a ")


def test_input_is_given_as_a_file(processes, tmp_path) -> None:
    job = processes.start(["/bin/cat"], tmp_path, input_bytes=b"x" * 300_000)
    assert job.wait(NEVER)
    assert job.output._all.total == 300_000


def test_own_session_and_group(run) -> None:
    pid, group, session = run("ps -o pid=,pgid=,sid= -p $$").output.text().split()
    assert pid == group == session
    assert os.getsid(0) != int(session)


def test_a_script_that_kills_its_own_group_hurts_nobody(run) -> None:
    assert run("trap '' TERM; kill -TERM 0; echo survived").output.text() == "survived\n"


def test_sigpipe_ends_a_writer(run) -> None:
    assert run("yes | head -1", timeout=5).ended.how == "exited"


def test_environment_is_scrubbed(run, monkeypatch, tmp_path) -> None:
    evil = tmp_path / "evil.sh"
    evil.write_text("echo EVIL\n")
    for name in ("BASH_ENV", "ENV", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "GIT_DIR"):
        monkeypatch.setenv(name, str(evil))
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONSTARTUP", "GIT_SSH_COMMAND", "MAKELEVEL"):
        monkeypatch.setenv(name, str(evil))
    monkeypatch.setenv("BASH_FUNC_ls%%", "() { echo EVIL; }")
    monkeypatch.setenv("MINE", "kept")
    with Processes() as processes:
        job = processes.start([*BASH, "env; ls /"], tmp_path)
        assert job.wait(NEVER)
    text = job.output.text()
    assert "EVIL" not in text
    assert str(evil) not in text
    assert "MINE=kept\n" in text
    assert "DS4_AGENT=1\n" in text
    assert f"PATH={os.environ['PATH']}\n" in text


def test_scrubbing_changes_only_what_it_names() -> None:
    kept = {"PATH": "/bin", "HOME": "/h", "LANG": "de_DE.UTF-8", "SSH_AUTH_SOCK": "/s"}
    assert scrubbed(kept).items() >= kept.items()


def test_timeout_ends_the_whole_tree(run, tmp_path) -> None:
    started = time.monotonic()
    job = run(f"sleep 100 & echo $! > {tmp_path}/child; echo before; sleep 100", timeout=0.5)
    assert 0.5 <= time.monotonic() - started < 10
    assert job.ended.how == "timed out"
    assert job.output.text() == "before\n"
    assert not alive(int((tmp_path / "child").read_text()))


def test_what_ignores_term_is_killed(run, tmp_path, monkeypatch) -> None:
    started = time.monotonic()
    job = run("trap '' TERM; while :; do sleep 0.05; done", timeout=0.2)
    assert job.ended.how == "timed out"
    assert 2 <= time.monotonic() - started < 10


def test_an_escaped_process_is_stopped_and_not_waited_for(run, tmp_path) -> None:
    """One in a session of its own holds the output pipe open."""
    written = "until test -s pid; do sleep 0.02; done"
    escape = f"setsid sh -c 'echo $$ > pid; sleep 100' & {written}; echo done"
    started = time.monotonic()
    job = run(escape)
    assert time.monotonic() - started < 10
    assert job.output.text() == "done\n"
    assert job.ended.left_running
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_doubly_forked_daemon_is_stopped(run, tmp_path) -> None:
    daemon = "(setsid sh -c 'sleep 100 & echo $! > pid' &)"
    run(f"{daemon}; until test -s pid; do sleep 0.02; done")
    assert wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_cancel_returns_at_once_and_ends_the_tree(processes, tmp_path) -> None:
    cancel = threading.Event()
    command = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
    job = processes.start([*BASH, command], tmp_path)
    assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    cancel.set()
    started = time.monotonic()
    assert not job.wait(cancel)
    assert time.monotonic() - started < 0.3
    assert job.done.wait(5)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_output_comes_while_it_runs(processes, tmp_path) -> None:
    job = processes.start([*BASH, "echo one; sleep 1; echo two"], tmp_path)
    seen: list[tuple[str, bool]] = []
    assert job.wait(NEVER, lambda text: seen.append((text, job.done.is_set())))
    assert seen[0] == ("one\n", False)
    assert "".join(text for text, _ in seen) == "one\ntwo\n"


def test_a_background_job_is_drained_and_timed_without_being_asked(processes, tmp_path) -> None:
    number = processes.start_background(
        [*BASH, "head -c 5000000 /dev/zero; touch full; sleep 100"], tmp_path, timeout=2
    )
    assert wait_for((tmp_path / "full").exists)  # no full pipe stopped it
    assert processes.jobs[number].done.wait(6)
    assert processes.jobs[number].ended.how == "timed out"


def test_endless_output_takes_bounded_memory_and_disk(processes, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ds4_agent.tools.output.FILE_LIMIT", 1_000_000)
    job = processes.start([*BASH, "yes"], tmp_path, timeout=1)
    assert job.wait(NEVER)
    text = job.output.text()
    assert job.output._all.total > 1_000_000
    assert len(text) < 40_000
    assert '; its beginning is in "$DS4_OUTPUT/output-1.txt" …]' in text
    assert (processes._output_directory / "output-1.txt").stat().st_size == 1_000_000


def test_long_output_is_kept_in_a_file_the_next_command_can_read(run, tmp_path) -> None:
    text = run("seq 1 20000").output.text()
    assert text.startswith("1\n2\n")
    assert text.endswith("\n19999\n20000\n")
    assert 'bytes left out; all of it is in "$DS4_OUTPUT/output-1.txt" …]\n' in text
    assert run('sed -n 7777p "$DS4_OUTPUT/output-1.txt"').output.text() == "7777\n"


def test_close_ends_everything_in_under_a_second(tmp_path) -> None:
    processes = Processes()
    stubborn = f"trap '' TERM; echo $$ >> {tmp_path}/pids; while :; do sleep 0.05; done"
    for _ in range(3):
        processes.start_background([*BASH, stubborn], tmp_path)
    pids = tmp_path / "pids"
    assert wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 3)
    started = time.monotonic()
    processes.close()
    assert time.monotonic() - started < 1.2  # under one, and what a busy machine adds
    assert wait_for(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))
    with pytest.raises(OSError, match="ending"):
        processes.start(["/bin/true"], tmp_path)


AGENT = """
import os, sys, time
from pathlib import Path
from ds4_agent.tools.process import Processes
here = Path(sys.argv[1])
processes = Processes()
bash = ["/bin/bash", "-c"]
processes.start_background([*bash, "echo $$ > a; sleep 100"], here)
processes.start_background([*bash, "setsid sh -c 'echo $$ > b; sleep 100' & sleep 100"], here)
for _ in range(1000):
    if all((here / n).exists() and (here / n).read_text() for n in "ab"):
        break
    time.sleep(0.01)
os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_death_of_the_agent_ends_everything(tmp_path: Path, number: int) -> None:
    script = tmp_path / "agent.py"
    script.write_text(AGENT)
    done = subprocess.run([sys.executable, str(script), str(tmp_path), str(int(number))])
    assert done.returncode == -number
    pids = [int((tmp_path / name).read_text()) for name in "ab"]
    assert wait_for(lambda: not any(map(alive, pids)))


def test_the_death_of_the_supervisor_ends_its_command(processes, tmp_path) -> None:
    job = processes.start([*BASH, "echo $$ > pid; sleep 100"], tmp_path)
    assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    os.kill(job._process.pid, signal.SIGKILL)
    assert job.wait(NEVER)
    assert job.ended.code == 137
    assert wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))


RUNS, AT_ONCE = 1000, 8


def test_a_thousand_runs_leave_no_process_descriptor_thread_or_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(process_module.tempfile, "tempdir", str(tmp_path))

    def state() -> tuple[list[str], int, int, list[str]]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        threads = sum(not t.name.startswith("runner") for t in threading.enumerate())
        open_files = len(os.listdir("/proc/self/fd"))
        return children, open_files, threads, sorted(os.listdir(tmp_path))

    def run_one(number: int) -> bool:
        """Most are as short as can be; some print more than is kept, or leave others running."""
        command = ["/bin/true"] if number % 50 else [*BASH, "sleep 9 & seq 1 9000"]
        job = processes.start(command, tmp_path, input_bytes=b"x" * (number % 2))
        return job.wait(NEVER) and job.ended.code == 0

    before = state()
    with Processes() as processes:
        with ThreadPoolExecutor(AT_ONCE, "runner") as runners:
            for part in range(0, RUNS, 100):
                assert all(runners.map(run_one, range(part, part + 100)))
                # Nothing is gathered up to the end either.
                assert wait_for(lambda: state()[:3] == before[:3])
        assert processes._output_directory.exists()
    assert wait_for(lambda: state() == before)


def test_files_of_an_agent_that_was_killed_are_swept(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(process_module.tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    left = tmp_path / f"ds4-agent-{gone.pid}-abc"
    kept = tmp_path / f"ds4-agent-{os.getpid()}-abc"
    for directory in (left, kept):
        directory.mkdir()
    with Processes() as processes:
        job = processes.start([*BASH, "seq 1 20000"], tmp_path)
        assert job.wait(NEVER)
    assert not left.exists()
    assert kept.exists()
