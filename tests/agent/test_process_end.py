"""The process itself: how it begins and ends when its reader goes or Ctrl+C comes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DS4 = (sys.executable, "-m", "ds4_agent")
LISTS = (
    ("--help",),
    ("--version",),
    ("tools", "list"),
    ("tools", "--help"),
    ("sessions", "list", "--json"),
    ("cache", "list", "--json"),
    ("config", "show"),
)


def run(*arguments: str, stdout: int, buffered: bool) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    done = subprocess.run(
        [*DS4, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment,
        timeout=60,
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("arguments", LISTS, ids=" ".join)
def test_a_reader_that_has_enough_ends_a_list_quietly(arguments: tuple[str, ...]) -> None:
    """`ds4-agent tools list | head -1`, where head is gone before anything was written."""
    reader, writer = os.pipe()
    os.close(reader)
    told = run(*arguments, stdout=writer, buffered=len(arguments) > 1)
    os.close(writer)
    assert told == (0, "")


@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_disk_below_a_list_is_one_line(buffered: bool) -> None:
    with Path("/dev/full").open("wb") as full:
        code, err = run("tools", "list", stdout=full.fileno(), buffered=buffered)
    assert code == 2
    assert err == "ds4-agent: cannot write to standard output: No space left on device\n"


STOPPED_WHILE_IT_LOADS = """
import os, signal, sys
module = sys.argv.pop(1)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from ds4_agent.__main__ import start
sys.exit(start())
"""


@pytest.mark.parametrize("module", ["argparse", "ds4_agent.agent.cli", "ds4_agent.agent.headless"])
def test_ctrl_c_while_it_loads_is_130_and_silent(module: str) -> None:
    program = [sys.executable, "-c", STOPPED_WHILE_IT_LOADS, module, "-p", "hi"]
    done = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, b"", b"")


def test_ctrl_c_while_python_puts_its_things_away_is_130_and_silent() -> None:
    program = (
        "import atexit, os, signal, sys\n"
        "from ds4_agent.__main__ import start\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "sys.argv[1:] = ['--version']\n"
        "sys.exit(start())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr == b""
    assert done.stdout.startswith(b"ds4-agent ")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_get_nothing_of_anybody_else(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """`2>&-`: the next file that is opened must not become stderr, nor what is told the answer."""
    (tmp_path / "script.jsonl").write_text('{"text": "ok"}\n')
    model = f"scripted:{tmp_path / 'script.jsonl'}"
    close = "import os, sys\nfor n in {}: os.close(n)\nos.execv(sys.argv[1], sys.argv[1:])"
    command = [*DS4, "-C", str(tmp_path), "--model", model, "-p", "hi"]
    done = subprocess.run(
        [sys.executable, "-c", close.format(closed), *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "DS4_HOME": str(tmp_path / "home")},
        timeout=60,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == (2 if 1 in closed else 0)
    assert out == ("" if 1 in closed else "ok\n")
    assert ("standard output: it is closed" in err) == (closed == (1,))
