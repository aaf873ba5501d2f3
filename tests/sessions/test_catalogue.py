"""The list of sessions is right whatever lies in the directory, and cheap the second time."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ds4_agent.sessions.catalogue import (
    find,
    fork,
    list_sessions,
    remove,
    rename,
    summary_of,
)
from ds4_agent.sessions.errors import SessionError, SessionInUseError
from ds4_agent.sessions.lines import read_lines
from ds4_agent.sessions.lock import SessionLock
from ds4_agent.sessions.log import SessionLog

NOW = datetime(2026, 11, 22, 7, 3, 1, tzinfo=UTC)
_opened: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(str(arguments[0]))  # of a descriptor its number


sys.addaudithook(_hear)  # for ever, so it is deaf outside `opened`


@contextmanager
def opened() -> Iterator[list[str]]:
    """The path of every file that is opened."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def make(root: Path, name: str, *records: dict[str, Any], at: float = 1000.0) -> Path:
    """A session that began at `at`, with a record a second."""
    header = {"type": "session", "session_id": name, "cwd": "/work/a", "model": "nano"}
    log = SessionLog(root / name)
    for second, record in enumerate([{**header, "fingerprint": "f1"}, *records]):
        log.event({"time": at + second, **record})
    log.close()
    return root / name


def prompt(text: str) -> dict[str, Any]:
    return {"type": "prompt", "text": text}


def step(tokens: int) -> dict[str, Any]:
    return {"type": "engine", "event": "step", "context_tokens": tokens}


def test_a_summary_says_what_the_log_says(tmp_path: Path) -> None:
    session = make(tmp_path, "one", prompt("fix\n  the retries"), step(120), prompt("b"), step(300))
    (summary,) = list_sessions(tmp_path)
    assert (summary.id, summary.title, summary.directory) == ("one", "fix the retries", "/work/a")
    assert (summary.model, summary.fingerprint) == ("nano", "f1")
    assert (summary.turns, summary.tokens, summary.note) == (2, 300, "")
    assert (summary.started, summary.last_used) == (1000.0, 1004.0)
    files = [path for path in session.iterdir() if path.is_file()]
    assert summary.bytes == sum(path.stat().st_size for path in files)


def test_turns_that_were_taken_back_do_not_count(tmp_path: Path) -> None:
    back = {"type": "rewind", "turn": 2}
    make(tmp_path, "s", prompt("a"), prompt("b"), prompt("c"), back, prompt("d"))
    (summary,) = list_sessions(tmp_path)
    assert (summary.turns, summary.title) == (2, "a")


def test_the_newest_comes_first(tmp_path: Path) -> None:
    make(tmp_path, "begun-first", prompt("x"), *[prompt("x")] * 20, at=1000)
    make(tmp_path, "begun-last", prompt("x"), at=1010)
    make(tmp_path, "old", prompt("x"), at=900)
    assert [s.id for s in list_sessions(tmp_path)] == ["begun-first", "begun-last", "old"]


def test_no_directory_means_no_sessions(tmp_path: Path) -> None:
    assert list_sessions(tmp_path / "none") == []
    assert list(tmp_path.iterdir()) == []


def test_sessions_of_one_directory_by_whatever_link(tmp_path: Path) -> None:
    here, root = tmp_path / "here", tmp_path / "sessions"
    here.mkdir()
    (tmp_path / "link").symlink_to(here)
    make(root, "mine", {"type": "resumed", "cwd": str(here)})
    make(root, "linked", {"type": "resumed", "cwd": str(tmp_path / "link")})
    make(root, "below", {"type": "resumed", "cwd": str(here / "sub")})
    make(root, "hostile", {"type": "resumed", "cwd": str(here) + "\0"})
    for asked in (here, tmp_path / "link"):
        assert {s.id for s in list_sessions(root, asked)} == {"mine", "linked"}


def test_listing_again_opens_no_log_that_has_not_changed(tmp_path: Path) -> None:
    for number in range(50):
        make(tmp_path, f"s{number:02d}", prompt(f"prompt {number}"))
    before = list_sessions(tmp_path)
    log = SessionLog(tmp_path / "s07")
    log.event({"time": 5000.0, **prompt("again")})
    log.close()
    make(tmp_path, "new", prompt("new"))
    remove(tmp_path / "s09")
    with opened() as files:
        after = list_sessions(tmp_path)
    read = {Path(file).parent.name for file in files if file.endswith(".jsonl")}
    assert read == {"s07", "new"}
    assert after[0].id == "s07"
    assert after[0].turns == 2
    untouched = {s for s in before if s.id not in ("s07", "s09")}
    assert untouched < set(after)
    assert len(after) == 50


def test_a_session_that_was_just_listed_is_not_read_again(tmp_path: Path) -> None:
    session = make(tmp_path, "s", prompt("one"))
    listed = list_sessions(tmp_path)
    with opened() as files:
        again = [summary_of(session), find(tmp_path, "s")]
    assert again == listed * 2
    assert not [file for file in files if file.endswith(".jsonl")]


def test_lines_that_are_not_decoded_count_like_those_that_are(tmp_path: Path) -> None:
    said = 'a text with "context_tokens":7, and "prefill_rate":7.5, in it'
    rated = {"type": "result", "result": said, "prefill_rate": 412.25}
    notice = {"type": "engine", "event": "notice", "text": said}
    plain = make(tmp_path, "plain", prompt("one"), {**step(900), "tok_s": 1.5}, rated, notice)
    spaced = make(tmp_path, "spaced")
    records = read_lines(plain / "events.jsonl").records
    text = "".join(json.dumps({**record, "session_id": "spaced"}) + "\n" for record in records)
    (spaced / "events.jsonl").write_text(text)  # with spaces: each is decoded

    one, other = summary_of(plain), summary_of(spaced)

    assert (one.tokens, one.prefill_rate) == (900, 412.25)
    assert (other.tokens, other.prefill_rate, other.last_used) == (900, 412.25, one.last_used)


@pytest.mark.parametrize("damage", ["gone", "flipped", "cut", "other", "link", "pipe"])
def test_the_index_is_never_trusted_over_the_logs(tmp_path: Path, damage: str) -> None:
    make(tmp_path, "s", prompt("the title"))
    right = list_sessions(tmp_path)
    index = tmp_path / ".index"
    data = index.read_bytes()
    index.unlink()
    if damage == "flipped":
        index.write_bytes(data.replace(b"the title", b"teh title"))
    elif damage == "cut":
        index.write_bytes(data[:-9])
    elif damage == "other":
        index.write_bytes(b"SQLite format 3\0" * 9)
    elif damage == "link":
        index.symlink_to(tmp_path / "elsewhere")
    elif damage == "pipe":
        os.mkfifo(index)
    assert list_sessions(tmp_path) == right
    assert not (tmp_path / "elsewhere").exists()
    assert list_sessions(tmp_path) == right


def test_the_index_is_the_users_alone(tmp_path: Path) -> None:
    make(tmp_path, "s", prompt("secret"))
    list_sessions(tmp_path)
    assert stat.S_IMODE((tmp_path / ".index").stat().st_mode) == 0o600


def test_sessions_that_cannot_be_read_cost_only_themselves(tmp_path: Path) -> None:
    outside = make(tmp_path / "elsewhere", "real", prompt("stolen"))
    root = tmp_path / "root"
    good = make(root, "good", prompt("hello"))
    (root / "empty").mkdir()
    (root / "linked").symlink_to(outside)
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("linked-log", "pipe", "folder", "garbage", "torn", "headless", "odd"):
        (root / name).mkdir()
    (root / "linked-log/events.jsonl").symlink_to(outside / "events.jsonl")
    os.mkfifo(root / "pipe/events.jsonl")
    (root / "folder/events.jsonl").mkdir()
    (root / "garbage/events.jsonl").write_bytes(os.urandom(2000) + b"\n\xff\xfe\n")
    whole = (good / "events.jsonl").read_bytes()
    (root / "torn/events.jsonl").write_bytes(whole[:-5])
    (root / "headless/events.jsonl").write_bytes(whole.splitlines(keepends=True)[1])
    (root / "odd/events.jsonl").write_text(
        '{"type":"session","cwd":["a"],"model":7,"time":1e999}\n{"type":"prompt","text":null}\n'
        '[1,2]\n7\n{"type":"prompt","text":"late"}\n{"type":"of the future","time":true}\n'
        '{"type":"engine","context_tokens":"many"}\n' + "[" * 100_000 + "\n"
    )
    (root / "a file").write_text("no session")
    found = {s.id: s for s in list_sessions(root)}
    assert found["good"].note == ""
    assert found["good"].title == "hello"
    assert found["empty"].note == "nothing was recorded"
    for name in ("linked", "dangling"):
        assert found[name].note == "it is a symbolic link, which is not followed"
        assert found[name].title == ""
    for name in ("linked-log", "pipe", "folder"):
        assert found[name].note.startswith("it cannot be read: "), name
        assert found[name].title == ""
    assert found["garbage"].note == "nothing in it can be read"
    assert found["torn"].note == "1 damaged line in its log"
    assert found["torn"].directory == "/work/a"
    assert found["headless"].note == "its first line is missing"
    assert found["headless"].title == "hello"
    assert (found["odd"].title, found["odd"].turns, found["odd"].tokens) == ("late", 2, 0)
    assert found["odd"].note == "3 damaged lines in its log"
    assert "a file" not in found


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_session_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    (make(tmp_path, "closed", prompt("x")) / "events.jsonl").chmod(0)
    (summary,) = list_sessions(tmp_path)
    assert summary.note == "it cannot be read: Permission denied"


def test_a_root_that_cannot_be_written_lists_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "s", prompt("x"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert [s.id for s in list_sessions(tmp_path)] == ["s"]
    assert [s.id for s in list_sessions(tmp_path)] == ["s"]


def test_a_session_is_found_by_its_id_its_beginning_or_its_end(tmp_path: Path) -> None:
    for name in ("20261122-070301-9f3a1c", "20261122-070301-9f3a1c-b", "20261123-080000-0c0c0c"):
        make(tmp_path, name, prompt("x"))
    assert find(tmp_path, "20261122-070301-9f3a1c").id == "20261122-070301-9f3a1c"
    assert find(tmp_path, "20261123").id == find(tmp_path, "0c0c0c").id == "20261123-080000-0c0c0c"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("2026", "2026 is the beginning of 2 sessions: 20261122-a, 20261123-b"),
        ("x", "there is no session x; see sessions list --all"),
        ("", "there is no session of no name; see sessions list --all"),
        ("../s", "there is no session ../s; see sessions list --all"),
        (".index", "there is no session .index; see sessions list --all"),
    ],
)
def test_a_name_that_means_no_single_session(tmp_path: Path, name: str, said: str) -> None:
    make(tmp_path, "20261122-a", prompt("x"))
    make(tmp_path, "20261123-b", prompt("x"))
    list_sessions(tmp_path)
    with pytest.raises(SessionError) as error:
        find(tmp_path, name)
    assert str(error.value) == said


def test_a_new_title_is_one_record_more_and_no_use_of_the_session(tmp_path: Path) -> None:
    session = make(tmp_path, "s", prompt("first"))
    before = (session / "events.jsonl").read_bytes()
    used = list_sessions(tmp_path)[0].last_used
    rename(session, "  the\nretries ")
    assert (session / "events.jsonl").read_bytes().startswith(before)
    (summary,) = list_sessions(tmp_path)
    assert (summary.title, summary.last_used) == ("the retries", used)
    rename(session, "again")
    assert list_sessions(tmp_path)[0].title == "again"
    with pytest.raises(SessionError):
        rename(session, " \n")


def test_a_session_in_use_is_neither_renamed_nor_removed(tmp_path: Path) -> None:
    session = make(tmp_path, "s", prompt("first"))
    lock = SessionLock(session)
    lock.acquire()
    before = (session / "events.jsonl").read_bytes()
    for work in (lambda: rename(session, "x"), lambda: remove(session)):
        with pytest.raises(SessionInUseError, match=f"open in process {os.getpid()}"):
            work()
    assert (session / "events.jsonl").read_bytes() == before
    lock.release()


def test_a_removed_session_is_gone_with_everything(tmp_path: Path) -> None:
    session = make(tmp_path, "s", prompt("first"))
    (session / "undo").mkdir()
    (session / "undo/journal").write_text("x")
    other = make(tmp_path, "t", prompt("second"))
    (tmp_path / ".removed-killed").mkdir()  # of a process that was killed
    remove(session)
    assert [path for path in tmp_path.iterdir() if path.name != ".index"] == [other]


def test_removing_a_link_removes_the_link(tmp_path: Path) -> None:
    real = make(tmp_path / "elsewhere", "real", prompt("x"))
    (tmp_path / "root").mkdir()
    link = tmp_path / "root/s"
    link.symlink_to(real)
    for work in (lambda: rename(link, "x"), lambda: fork(link, NOW)):
        with pytest.raises(SessionError, match="symbolic link"):
            work()
    remove(link)
    assert not link.is_symlink()
    assert len(read_lines(real / "events.jsonl").records) == 2


def test_a_fork_begins_as_its_session_and_says_of_which(tmp_path: Path) -> None:
    session = make(tmp_path, "s", prompt("first"), {"type": "of the future", "field": [1]})
    with (session / "events.jsonl").open("ab") as file:
        file.write(b'damaged\n{"type":"prompt","text":"to')
    (session / "tokens.jsonl").write_text('{"kind":"data","at":0,"ids":[1,2]}\n')
    (session / "undo").mkdir()
    (session / "undo/journal").write_text("x")
    before = {path.name: path.read_bytes() for path in session.glob("*.jsonl")}
    lock = SessionLock(session)
    lock.acquire()  # it is in use, which does not matter
    copy = fork(session, NOW)
    lock.release()
    assert {path.name: path.read_bytes() for path in session.glob("*.jsonl")} == before
    assert sorted(path.name for path in copy.iterdir()) == ["events.jsonl", "tokens.jsonl", "undo"]
    assert copy.name.startswith("20261122-070301-")
    old, new = read_lines(session / "events.jsonl"), read_lines(copy / "events.jsonl")
    stamp = {"time": NOW.timestamp(), "session_id": copy.name, "forked_from": "s"}
    assert new.records == ({**old.records[0], **stamp}, *old.records[1:])
    assert new.damaged == 1
    assert (copy / "tokens.jsonl").read_bytes() == before["tokens.jsonl"]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in copy.glob("*.jsonl")} == {0o600}
    (newest, _) = list_sessions(tmp_path)
    assert (newest.id, newest.forked_from, newest.title) == (copy.name, "s", "first")


def test_a_fork_of_a_session_without_a_first_record_gets_one(tmp_path: Path) -> None:
    session = make(tmp_path, "s", prompt("first"))
    lines = (session / "events.jsonl").read_bytes().splitlines(keepends=True)
    (session / "events.jsonl").write_bytes(b"\xff" + lines[0] + lines[1])
    copy = fork(session, NOW)
    assert find(tmp_path, copy.name).forked_from == "s"
    assert find(tmp_path, copy.name).title == "first"


def test_a_fork_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make(tmp_path, "s", prompt("first"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(SessionError, match="session s cannot be copied: No space left"):
            fork(session, NOW)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SessionError, match="session empty cannot be copied: No such file"):
        fork(tmp_path / "empty", NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "s"]
