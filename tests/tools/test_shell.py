"""bash, bash_status, bash_stop: the texts the model reads, and what it can rely on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ds4_agent.tools import shell
from ds4_agent.tools.types import ToolError


def test_output_and_exit_code(call) -> None:
    assert call("bash", command="echo one; echo two >&2").content == "exit code 0\none\ntwo"
    failed = call("bash", command="echo no; exit 3")
    assert failed.content == "exit code 3\nno"
    assert not failed.is_error  # the command said so; the tool did its work


def test_no_output(call) -> None:
    assert call("bash", command="true").content == "exit code 0, no output"
    assert call("bash", command="false").content == "exit code 1, no output"


def test_runs_in_the_workspace_each_time_anew(call, root: Path) -> None:
    (root / "sub").mkdir()
    assert call("bash", command="cd sub; X=1; pwd").content == f"exit code 0\n{root}/sub"
    assert call("bash", command="pwd; echo $X").content == f"exit code 0\n{root}\n"


def test_it_is_bash_without_rc_files(call, home: Path, monkeypatch) -> None:
    (home / ".bashrc").write_text("echo RC\n")
    (home / ".profile").write_text("echo RC\n")
    monkeypatch.setenv("ENV", str(home / ".profile"))
    result = call("bash", command="[[ a == a ]] && x=(1 2); echo ${x[1]} $-")
    assert result.content.startswith("exit code 0\n2 ")
    assert "i" not in result.content.splitlines()[1]


def test_timeout(call) -> None:
    result = call("bash", command="echo before; sleep 60", timeout=1)
    assert result.content == "timed out after 1 s\nbefore"
    assert result.is_error


@pytest.mark.parametrize("timeout", [0, -1, 10**9])
def test_senseless_timeouts(call, timeout: int) -> None:
    assert "timeout must be between" in call("bash", command="true", timeout=timeout).content


@pytest.mark.parametrize("command", ["", "  ", "a\0b"])
def test_senseless_commands(call, command: str) -> None:
    assert call("bash", command=command).is_error


def test_cancel(call, context) -> None:
    threading.Timer(0.5, context.cancel.set).start()
    started = time.monotonic()
    result = call("bash", command="echo before; sleep 60")
    assert time.monotonic() - started < 5
    assert result.is_error
    assert result.content.startswith("interrupted")


def test_output_is_passed_on_as_it_comes(call, context) -> None:
    seen: list[str] = []
    context.on_output = seen.append
    call("bash", command="printf 'caf\\303'; sleep 0.3; printf '\\251\\n'")
    assert "".join(seen) == "café\n"


def test_bytes_that_are_no_text(call) -> None:
    assert call("bash", command="printf 'a\\377\\001b'").content == "exit code 0\na\ufffd\x01b"


def test_what_is_left_running_is_stopped_and_said(call) -> None:
    result = call("bash", command="sleep 60 & echo started")
    assert result.content == (
        "exit code 0\nstarted\n[processes it left running were stopped; use background for those]"
    )


def test_a_background_job(call, root: Path) -> None:
    started = call("bash", command="echo one; until test -e go; do sleep 0.02; done; echo two; "
                   "exit 4", background=True)  # fmt: skip
    assert started.content == "started job 1"
    until = time.monotonic() + 10
    while (first := call("bash_status", job=1).content) == "job 1: running, no new output":
        assert time.monotonic() < until
    assert first == "job 1: running\none"
    assert call("bash_status", job=1).content == "job 1: running, no new output"
    (root / "go").touch()
    while (last := call("bash_status", job=1).content).startswith("job 1: running"):
        assert time.monotonic() < until
    assert last in ("job 1: exit code 4\ntwo", "job 1: exit code 4, no new output")
    assert call("bash_status", job=1).content == "job 1: exit code 4, no new output"
    assert call("bash_stop", job=1).content == "job 1 had ended before: exit code 4, no new output"


def test_a_job_is_stopped(call) -> None:
    call("bash", command="trap 'echo bye; exit' TERM; echo hi; while :; do sleep 0.02; done",
         background=True)  # fmt: skip
    until = time.monotonic() + 10
    while call("bash_status", job=1).content == "job 1: running, no new output":
        assert time.monotonic() < until
    assert call("bash_stop", job=1).content.endswith("bye")
    assert call("bash_status", job=1).content == "job 1: stopped, no new output"


def test_a_jobs_timeout_holds_without_being_asked(call, context) -> None:
    call("bash", command="sleep 60", background=True, timeout=1)
    assert context.processes.jobs[1].done.wait(10)
    assert call("bash_status", job=1).content == "job 1: timed out, no new output"


def test_jobs_that_do_not_exist(call) -> None:
    assert call("bash_status", job=1).content == "Error: there is no job 1; none was started"
    call("bash", command="true", background=True)
    assert call("bash_stop", job=7).content == "Error: there is no job 7; there are 1"


def test_a_machine_without_bash(call, monkeypatch) -> None:
    monkeypatch.setattr(shell, "SHELLS", ("/no/bash",))
    assert call("bash", command="true").content.startswith("Error: there is no bash")
    with pytest.raises(ToolError):
        shell.shell()


def test_a_workspace_that_was_removed(call, root: Path) -> None:
    root.rmdir()
    result = call("bash", command="true")
    assert result.content == "Error: cannot start the command: No such file or directory"
