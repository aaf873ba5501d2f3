"""One process writes a session at a time, and a killed one leaves no lock behind."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ds4_agent.sessions import lock as lock_module
from ds4_agent.sessions.errors import SessionInUseError
from ds4_agent.sessions.lock import SessionLock
from ds4_agent.sessions.log import SessionLog

HOLD = """
import sys, time
from pathlib import Path
from ds4_agent.sessions.lock import SessionLock
lock = SessionLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = SessionLock(tmp_path / "s")
    first.acquire()
    with pytest.raises(SessionInUseError, match=f"session s is open in process {os.getpid()}, si"):
        SessionLock(tmp_path / "s").acquire()
    first.release()
    second = SessionLock(tmp_path / "s")
    second.acquire()
    second.release()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SessionInUseError, match=f"process {other.pid}"):
            SessionLock(tmp_path / "s").acquire()
        other.send_signal(signal.SIGKILL)
    lock = SessionLock(tmp_path / "s")
    lock.acquire()
    assert lock.is_held
    lock.release()
    lock.release()


def test_acquiring_twice_is_holding_once(tmp_path: Path) -> None:
    lock = SessionLock(tmp_path / "s")
    lock.acquire()
    lock.acquire()
    lock.release()
    assert not lock.is_held


def test_lock_and_directory_are_the_users_alone(tmp_path: Path) -> None:
    lock = SessionLock(tmp_path / "a/s")
    lock.acquire()
    lock.release()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a/s/lock").stat().st_mode) == 0o600


def test_a_lock_that_was_removed_with_its_session_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remover holds it to the end: whoever waited at the same file gets a new one."""
    (tmp_path / "s").mkdir()
    real, removed = lock_module.fcntl.flock, []

    def remove_first(file: int, how: int) -> None:
        if not removed:
            removed.append(True)
            (tmp_path / "s/lock").unlink()
        real(file, how)

    monkeypatch.setattr(lock_module.fcntl, "flock", remove_first)
    lock = SessionLock(tmp_path / "s")
    lock.acquire()
    with pytest.raises(SessionInUseError):
        SessionLock(tmp_path / "s").acquire()
    lock.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x", "since": 1}', b"\xff"])
def test_a_damaged_lock_file_still_locks(tmp_path: Path, content: bytes) -> None:
    lock = SessionLock(tmp_path / "s")
    lock.acquire()
    (tmp_path / "s/lock").write_bytes(content)
    with pytest.raises(SessionInUseError, match=r"session s is open in another process$"):
        SessionLock(tmp_path / "s").acquire()
    lock.release()


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "s/lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        SessionLock(tmp_path / "s").acquire()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_log_of_a_session_that_is_open_elsewhere_says_so_and_writes_nothing(
    tmp_path: Path,
) -> None:
    first, second = SessionLog(tmp_path / "s"), SessionLog(tmp_path / "s")
    first.event({"n": 1})
    before = (tmp_path / "s/events.jsonl").read_bytes()
    second.event({"n": 2})
    assert second.failure.startswith("this session is not saved: session s is open in process ")
    assert (tmp_path / "s/events.jsonl").read_bytes() == before
    second.close()
    first.close()
    third = SessionLog(tmp_path / "s")
    third.event({"n": 3})
    assert third.failure == ""
    third.close()
