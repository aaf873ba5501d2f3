"""The whole agent is killed with `kill -9`: nothing that it started lives on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

PATIENCE = 60.0  # seconds; the machine may be busy


def wait_for(condition: Callable[[], object]) -> bool:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
def test_all_of_its_commands_are_dead(
    repo: Path, script: Callable[..., str], play: SimpleNamespace
) -> None:
    stubborn = "trap '' TERM HUP INT; echo $$ > {0}; while :; do sleep 0.1; done"
    escaped = "setsid sh -c 'echo $$ > daemon; sleep 600' & sleep 600"
    model = script(
        play.call("bash", command=stubborn.format("job"), background=True),
        play.call("bash", command=escaped, background=True),
        play.call("bash", command=stubborn.format("command")),
    )
    command = (sys.executable, "-m", "ds4_agent.agent.cli", "-C", str(repo), "--model", model)
    with subprocess.Popen(
        [*command, "-p", "go"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as agent:
        names = ("job", "daemon", "command")
        files = [repo / name for name in names]
        assert wait_for(lambda: all(file.exists() and file.read_text() for file in files))
        pids = [int(file.read_text()) for file in files]
        assert all(map(alive, pids))

        os.kill(agent.pid, signal.SIGKILL)

    assert agent.returncode == -signal.SIGKILL
    assert wait_for(lambda: not any(map(alive, pids))), [pid for pid in pids if alive(pid)]
