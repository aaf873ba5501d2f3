"""`ds4-agent sessions …` over sessions that were really run, and over damaged and hostile ones."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.sessions.lock import SessionLock

Sessions = Callable[..., SimpleNamespace]


@pytest.fixture
def sessions(repo: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Sessions:
    """`sessions(*arguments)`: `ds4-agent sessions … -C repo` in this process."""

    def run(*arguments: str, directory: Path = repo) -> SimpleNamespace:
        capfdbinary.readouterr()
        code = main(["sessions", *arguments, "-C", str(directory)])
        out, err = capfdbinary.readouterr()
        return SimpleNamespace(code=code, out=out.decode(), err=err.decode())

    return run


@pytest.fixture
def session(ds4: Callable[..., Any], play: SimpleNamespace, home: Path) -> Path:
    """One session of two steps in `repo`."""
    steps = [play.call("bash", command="echo Hello"), play.say("All *done*.")]
    assert ds4(steps, "-p", "fix the\nretries", "--permission-mode", "auto").code == 0
    (made,) = home.glob("data/sessions/2*")
    return made


def hostile(home: Path, session: Path) -> Path:
    """A session that says what no terminal should be told."""
    evil = "\x1b]0;owned\x07 \u202e \x9b31m \x7f \udce4"
    copy = home / "data/sessions/20990101-000000-e71100"
    copy.mkdir()
    records = [json.loads(line) for line in (session / "events.jsonl").read_text().splitlines()]
    for record in records:
        if record["type"] == "session":
            record.update(model=evil, cwd=evil, forked_from=evil, session_id=evil)
        if record["type"] == "prompt":
            record["text"] = evil
    block = {"type": "tool_use", "id": "x", "name": evil, "input": {evil: evil}}
    answer = {"type": "text", "text": evil}
    message = {"role": "assistant", "content": [answer, block]}
    records += [{"type": "assistant", "message": message}, {"type": "error", "text": evil}]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (copy / "events.jsonl").write_text(text + "\x1b[31mdamaged\n")
    return copy


def test_a_session_of_this_directory_is_listed(sessions: Sessions, session: Path) -> None:
    listed = sessions("list")
    head, row = listed.out.splitlines()
    assert head.split() == ["ID", "LAST", "USED", "TURNS", "TOKENS", "SIZE", "RESUME", "TITLE"]
    assert row.startswith(session.name)
    assert "fix the retries" in row
    (entry,) = json.loads(sessions("list", "--json").out)
    assert entry["id"] == session.name
    assert entry["title"] == "fix the retries"
    assert (entry["turns"], entry["note"], entry["forked_from"]) == (1, "", "")
    assert entry["resume_seconds"] is None  # a scripted model says nothing of it
    steps = [json.loads(line) for line in (session / "events.jsonl").read_text().splitlines()]
    used = [record["context_tokens"] for record in steps if "context_tokens" in record]
    assert entry["tokens"] == used[-1] > 0
    assert entry["last_used"] >= entry["started"] > "2026"


def test_sessions_of_other_directories_need_all(
    sessions: Sessions, session: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    listed = sessions("list", directory=tmp_path / "other")
    assert (listed.code, listed.out) == (0, "")
    assert listed.err == (
        "ds4-agent: no session of this directory; --all lists 1 session of others\n"
    )
    assert session.name in sessions("list", "--all", directory=tmp_path / "other").out
    assert json.loads(sessions("list", "--json", directory=tmp_path / "other").out) == []


def test_no_session_at_all(sessions: Sessions, home: Path) -> None:
    listed = sessions("list", "--all")
    assert (listed.code, listed.out, listed.err) == (0, "", "ds4-agent: no session yet\n")
    assert not home.exists()


def test_a_session_is_shown_as_the_conversation_it_was(sessions: Sessions, session: Path) -> None:
    shown = sessions("show", session.name[-6:])
    assert shown.code == 0
    assert shown.out.startswith("fix the retries\n\nsession      " + session.name)
    assert shown.out.endswith(
        "> fix the\n> retries\n\n* bash echo Hello\n  exit code 0\n\nAll *done*.\n"
    )
    whole = json.loads(sessions("show", session.name, "--json").out)
    lines = (session / "events.jsonl").read_text().splitlines()
    assert whole["records"] == [json.loads(line) for line in lines]
    assert whole["damaged"] == 0


def test_an_export_is_whole_on_stdout_or_in_a_file(
    sessions: Sessions, session: Path, tmp_path: Path
) -> None:
    text = sessions("export", session.name).out
    assert text.startswith("# fix the retries\n")
    assert "> All *done*.\n" in text
    file = tmp_path / "out.md"
    assert sessions("export", session.name, "-o", str(file)).out == ""
    assert file.read_text() == text
    exported = json.loads(sessions("export", session.name, "--format", "json").out)
    assert exported == json.loads(sessions("show", session.name, "--json").out)


def test_search_finds_prompts_answers_calls_and_results(sessions: Sessions, session: Path) -> None:
    for text, kind in (("RETRIES", "prompt"), ("*done*", "answer"), ("hello", "bash")):
        found = sessions("search", text)
        assert found.out.startswith(session.name), text
        assert f"    {kind}: " in found.out
        (result,) = json.loads(sessions("search", text, "--json").out)
        assert result["id"] == session.name
        assert result["matches"][-1]["kind"] == kind
    nothing = sessions("search", ".*")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err == "ds4-agent: no session of this directory says .*\n"
    assert sessions("search", " ").code == 1


def test_search_says_how_much_more_there_is(
    sessions: Sessions, ds4: Callable[..., Any], play: SimpleNamespace
) -> None:
    calls = [("bash", {"command": f"echo needle {number}"}) for number in range(6)]
    ds4([play.calls(*calls), play.say("ok")], "-p", "go", "--permission-mode", "auto")
    lines = sessions("search", "needle").out.splitlines()
    assert len(lines) == 5
    assert lines[-1] == "    and 3 more places"


def test_rename_fork_and_remove(sessions: Sessions, session: Path) -> None:
    assert sessions("rename", session.name, "The", "retries").code == 0
    assert "The retries" in sessions("list").out
    forked = sessions("fork", session.name)
    name = forked.out.strip()
    assert forked.err == f"ds4-agent: ds4-agent --resume {name} goes on in it\n"
    entries = {entry["id"]: entry for entry in json.loads(sessions("list", "--json").out)}
    assert entries[name]["forked_from"] == session.name
    assert entries[name]["title"] == "The retries"
    removed = sessions("rm", session.name, name)
    assert removed.out == f"removed {session.name}  The retries\nremoved {name}  The retries\n"
    assert sessions("list").out == ""


def test_removing_several_removes_none_if_one_is_not_there(
    sessions: Sessions, session: Path
) -> None:
    removed = sessions("rm", session.name, "nonsense")
    assert (removed.code, removed.out) == (1, "")
    assert removed.err == ("ds4-agent: there is no session nonsense; see sessions list --all\n")
    assert session.exists()


@pytest.mark.parametrize("command", [["rename", "x"], ["rm"]])
def test_a_session_in_use_is_left_alone(
    sessions: Sessions, session: Path, command: list[str]
) -> None:
    lock = SessionLock(session)
    lock.acquire()
    done = sessions(command[0], session.name, *command[1:])
    assert done.code == 1
    said = f"ds4-agent: session {session.name} is open in process {os.getpid()}, since "
    assert done.err.startswith(said)
    assert session.exists()
    lock.release()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show"], "it is `ds4-agent sessions show ID`; see sessions --help"),
        (["list", "x"], "it is `ds4-agent sessions list`; see sessions --help"),
        (["rename", "x"], "it is `ds4-agent sessions rename ID TITLE`; see sessions --help"),
        (["list", "-o", "x"], "--format and -o go with sessions export"),
        (["show", "x"], "there is no session x; see sessions list --all"),
        (["fork", "../.."], "there is no session ../..; see sessions list --all"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    sessions: Sessions, arguments: list[str], said: str
) -> None:
    done = sessions(*arguments)
    assert (done.code, done.out, done.err) == (1, "", f"ds4-agent: {said}\n")


def test_an_export_that_cannot_be_written_says_so(
    sessions: Sessions, session: Path, tmp_path: Path
) -> None:
    done = sessions("export", session.name, "-o", str(tmp_path))
    assert (done.code, done.out) == (1, "")
    assert done.err == f"ds4-agent: {tmp_path} is a directory; -o needs a file\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--all"],
        ["list", "--all", "--json"],
        ["show", "e71100"],
        ["show", "e71100", "--json"],
        ["search", "--all", "owned"],
        ["search", "--all", "owned", "--json"],
        ["export", "e71100"],
        ["export", "e71100", "--format", "json"],
        ["rename", "e71100", "\x1b[31mred"],
        ["fork", "e71100"],
        ["rm", "e71100"],
        ["show", "\x1b[31mred"],
    ],
)
def test_nothing_said_in_a_session_reaches_the_terminal_raw(
    sessions: Sessions, home: Path, session: Path, arguments: list[str]
) -> None:
    hostile(home, session)
    done = sessions(*arguments)
    assert done.code == (1 if arguments == ["show", "\x1b[31mred"] else 0), done.err
    acting = [c for c in done.out + done.err if c != "\n" and not c.isprintable()]
    assert acting == []


def test_damage_costs_its_line_and_is_told(sessions: Sessions, home: Path, session: Path) -> None:
    copy = hostile(home, session)
    assert "(1 damaged line in its log)" in sessions("list", "--all").out
    exported = sessions("export", copy.name)
    assert exported.err == "ds4-agent: 1 damaged line in its log left out\n"
    assert "- Damaged lines: 1\n" in exported.out
    assert "> All *done*.\n" in exported.out


def test_what_is_no_session_costs_only_itself(
    sessions: Sessions, home: Path, session: Path
) -> None:
    root = home / "data/sessions"
    (root / "empty").mkdir()
    (root / "link").symlink_to(session)
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe/events.jsonl")
    listed = sessions("list")
    assert len(listed.out.splitlines()) == 2
    said = "3 sessions of unknown directory; --all lists them and says why"
    assert listed.err == f"ds4-agent: {said}\n"
    assert "(nothing was recorded)" in sessions("list", "--all").out
    assert session.name in sessions("search", "--all", "retries").out
    for name in ("empty", "link", "pipe"):
        shown = sessions("show", name)
        assert (shown.code, shown.out) == (2, "")
        assert shown.err.startswith(f"ds4-agent: session {name}: ")
        assert sessions("rm", name).code == 0
    assert session.exists()


def test_a_read_only_home_lists_and_shows(
    sessions: Sessions, home: Path, session: Path, tmp_path: Path
) -> None:
    """Root writes anywhere, so what cannot be written here is a name that is taken."""
    (home / "data/sessions/.index.new").mkdir()
    assert session.name in sessions("list").out
    assert session.name in sessions("list").out
    shutil.rmtree(home / "data/sessions/.index.new")


def test_sessions_and_their_index_are_the_users_alone(
    sessions: Sessions, home: Path, session: Path
) -> None:
    name = sessions("fork", session.name).out.strip()
    sessions("list")
    root = home / "data/sessions"
    for path in (root, *root.iterdir(), *(root / name).iterdir(), *session.iterdir()):
        allowed = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == allowed, path
