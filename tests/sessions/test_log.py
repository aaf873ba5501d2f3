"""What is logged is on disk in whole lines, private, and never in the way of the work."""

import json
import os
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from ds4_agent.sessions.log import TOKENS_PER_RECORD, SessionLog, new_session_id


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_nothing_is_created_before_the_first_record(tmp_path: Path) -> None:
    SessionLog(tmp_path / "a").close()
    assert list(tmp_path.iterdir()) == []


def test_events_are_appended_in_order_a_line_each(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "s")
    log.event({"n": 1, "text": "a\nb"})
    log.event({"n": 2}, durable=True)
    assert [r["n"] for r in records(tmp_path / "s/events.jsonl")] == [1, 2]
    log.close()
    log.close()


def test_directories_and_files_are_the_users_alone(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "data/sessions/s")
    log.event({})
    log.close()
    for path in (tmp_path / "data", tmp_path / "data/sessions", tmp_path / "data/sessions/s"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data/sessions/s/events.jsonl").stat().st_mode) == 0o600


def test_tokens_are_gathered_by_kind_and_none_is_lost(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "s")
    log.tokens("control", [0], at=0)
    log.tokens("data", [7, 8], at=0)
    for token_id in range(TOKENS_PER_RECORD * 2):
        log.tokens("sampled", [token_id], at=0)
    log.close()
    read = records(tmp_path / "s/tokens.jsonl")
    assert [r["kind"] for r in read[:3]] == ["control", "data", "sampled"]
    sampled = [i for r in read if r["kind"] == "sampled" for i in r["ids"]]  # type: ignore[attr-defined]
    assert sampled == list(range(TOKENS_PER_RECORD * 2))


def test_a_place_that_cannot_be_written_is_said_once_and_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    log = SessionLog(tmp_path / "file" / "s")
    log.event({"n": 1})
    log.event({"n": 2})
    log.tokens("data", [1], at=0)
    log.close()
    assert log.failure.startswith(f"this session is not saved: {tmp_path}/file/s: ")


def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path) -> None:
    # A limit on the size of files is a full disk that a test can make.
    program = f"""
import resource, signal, json
from pathlib import Path
from ds4_agent.sessions.log import SessionLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = SessionLog(Path({str(tmp_path / "s")!r}))
for n in range(20):
    log.event({{"n": n, "text": "x" * 100}})
log.close()
print(log.failure)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "File too large" in done.stdout or "No space left" in done.stdout, done.stderr
    read = records(tmp_path / "s/events.jsonl")
    assert [r["n"] for r in read] == list(range(len(read)))
    assert len(read) > 3


def test_a_symbolic_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/events.jsonl").symlink_to(tmp_path / "victim")
    log = SessionLog(tmp_path / "s")
    log.event({})
    assert log.failure
    assert not (tmp_path / "victim").exists()


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "s")
    log.event({"name": os.fsdecode(b"caf\xe9")})
    log.close()
    (record,) = records(tmp_path / "s/events.jsonl")
    assert os.fsencode(str(record["name"])) == b"caf\xe9"


@pytest.mark.parametrize("_", range(3))
def test_session_ids_are_unique_and_sort_by_time(_: int) -> None:
    early = new_session_id(datetime(2026, 1, 2, 3, 4, 5))
    assert early.startswith("20260102-030405-")
    assert early != new_session_id(datetime(2026, 1, 2, 3, 4, 5))
    assert early < new_session_id(datetime(2026, 1, 2, 3, 4, 6))
