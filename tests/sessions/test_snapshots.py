"""What is saved for undo is on the disk before the change, once, and read back exactly or not."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ds4_agent.sessions.errors import SnapshotError
from ds4_agent.sessions.snapshots import SavedFile, Snapshots, digest, latest_changed

A, B, C = b"one\n", b"two\n", b"three\n"


@pytest.fixture
def session(tmp_path: Path) -> Path:
    return tmp_path / "data/sessions/20260101-000000-aaaaaa"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ws/a.txt"


@pytest.fixture
def snapshots(session: Path, file: Path) -> Iterator[Snapshots]:
    opened = Snapshots(session, [file.parent])
    yield opened
    opened.close()


def change(snapshots: Snapshots, path: Path, old: bytes | None, new: bytes | None) -> None:
    snapshots.before_write(path, old, None if old is None else 0o644, new)
    snapshots.after_write(path)


def last(snapshots: Snapshots) -> SavedFile:
    turn = snapshots.last_turn()
    assert turn is not None
    (file,) = turn.files
    return file


def test_nothing_is_created_before_the_first_change(snapshots: Snapshots, tmp_path: Path) -> None:
    assert snapshots.last_turn() is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_was_can_be_had_back(snapshots: Snapshots, file: Path) -> None:
    change(snapshots, file, A, B)
    saved = last(snapshots)
    assert (saved.path, saved.mode, saved.written) == (file, 0o644, (digest(B),))
    assert saved.before is not None
    assert snapshots.content(saved.before) == A


def test_a_file_that_was_not_there_has_no_content(snapshots: Snapshots, file: Path) -> None:
    change(snapshots, file, None, B)
    saved = last(snapshots)
    assert (saved.before, saved.mode, saved.written) == (None, None, (digest(B),))
    assert saved.made == 1  # ws/ is not there either


def test_several_changes_in_a_turn_are_one_from_the_first_to_the_last(
    snapshots: Snapshots, file: Path
) -> None:
    change(snapshots, file, A, B)
    change(snapshots, file, B, C)
    saved = last(snapshots)
    assert (saved.before, saved.written) == (digest(A), (digest(C),))


def test_what_somebody_else_made_in_between_is_what_comes_back(
    snapshots: Snapshots, file: Path
) -> None:
    change(snapshots, file, A, B)
    change(snapshots, file, b"theirs\n", C)
    saved = last(snapshots)
    assert (saved.before, saved.written) == (digest(b"theirs\n"), (digest(C),))


def test_a_change_that_was_not_confirmed_may_or_may_not_have_been_made(
    snapshots: Snapshots, file: Path
) -> None:
    change(snapshots, file, A, B)
    snapshots.before_write(file, B, 0o644, C)
    assert last(snapshots).written == (digest(B), digest(C))
    assert last(snapshots).is_certain


def test_turns_are_undone_from_the_last_and_none_twice(snapshots: Snapshots, file: Path) -> None:
    change(snapshots, file, A, B)
    snapshots.new_turn()
    change(snapshots, file, B, C)
    befores = []
    while (turn := snapshots.last_turn()) is not None:
        befores.append(turn.files[0].before)
        snapshots.undo_begins(turn)
        assert snapshots.last_turn() == replace(turn, is_begun=True)
        snapshots.undo_ended(turn)
    assert befores == [digest(B), digest(A)]


def test_an_undo_is_news_until_it_is_told_in_other_processes_as_well(
    snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    turn = snapshots.last_turn()
    assert turn is not None
    other = Snapshots(session, [file.parent])
    other.undo_ended(turn, ["a.txt"])
    other.close()
    assert snapshots.news() == {turn.number: ("a.txt",)}
    snapshots.told([turn.number])
    again = Snapshots(session, [file.parent])
    assert again.news() == {}
    again.close()


def test_a_session_that_goes_on_in_another_process_keeps_its_turns(
    snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    snapshots.close()
    again = Snapshots(session, [file.parent])
    change(again, file, B, C)
    again.close()
    assert last(again).before == digest(B)
    assert again.roots == (file.parent,)


def test_a_content_is_stored_once(snapshots: Snapshots, session: Path, file: Path) -> None:
    for number in range(4):
        change(snapshots, file.with_name(f"{number}"), A, B)
        change(snapshots, file.with_name(f"{number}"), B, C)  # B is nobody's way back
    assert sorted(path.name for path in (session / "undo").iterdir()) == [digest(A), "journal"]


def test_a_damaged_content_is_said_and_costs_only_its_file(
    snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    change(snapshots, file.with_name("b"), C, B)
    (session / "undo" / digest(A)).write_bytes(b"onf\n")
    with pytest.raises(SnapshotError, match="damaged"):
        snapshots.content(digest(A))
    assert snapshots.content(digest(C)) == C
    (session / "undo" / digest(A)).unlink()
    with pytest.raises(SnapshotError, match="gone"):
        snapshots.content(digest(A))


def test_a_damaged_content_is_written_again_when_it_comes_again(
    snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    (session / "undo" / digest(A)).write_bytes(b"")
    change(snapshots, file.with_name("b"), A, B)
    assert snapshots.content(digest(A)) == A


@pytest.mark.parametrize("how", ["flip", "garbage", "binary"])
def test_a_damaged_record_is_counted_and_the_others_are_read(
    how: str, snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    change(snapshots, file.with_name("b"), C, B)
    journal = session / "undo/journal"
    roots, first, *rest = journal.read_bytes().splitlines(keepends=True)
    damaged = {"flip": first.replace(b"a.txt", b"b.txt"), "garbage": b"{}\n", "binary": b"\xff\n"}
    journal.write_bytes(b"".join([roots, damaged[how], *rest]))
    turn = snapshots.last_turn()
    assert turn is not None
    assert ([saved.path.name for saved in turn.files], turn.damaged) == (["b"], 1)


def test_a_damaged_record_of_a_file_changed_twice_does_not_lead_half_of_the_way_back(
    snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    change(snapshots, file, B, C)
    journal = session / "undo/journal"
    records = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([records[0], b"{}\n", *records[2:]]))
    assert (last(snapshots).before, last(snapshots).written) == (digest(A), (digest(C),))


def test_a_file_of_which_a_change_was_not_saved_does_not_go_half_of_the_way_back(
    snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    (session / "undo").rename(session / "gone")  # the next content cannot be stored
    change(snapshots, file, b"theirs\n", C)
    assert "cannot be saved" in snapshots.failure
    (session / "gone").rename(session / "undo")
    change(snapshots, file, C, A)
    assert (last(snapshots).before, last(snapshots).written) == (digest(A), (digest(B),))


def test_a_torn_last_record_is_as_if_it_had_not_been_written(
    snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    snapshots.close()
    journal = session / "undo/journal"
    with journal.open("ab") as stream:
        stream.write(b'0123abcd {"type":"bef')
    again = Snapshots(session, [file.parent])
    change(again, file, B, C)
    again.close()
    assert last(again).before == digest(B)
    turn = again.last_turn()
    assert turn is not None
    assert turn.damaged == 0


def test_directories_and_files_are_the_users_alone(
    snapshots: Snapshots, session: Path, file: Path
) -> None:
    change(snapshots, file, A, B)
    assert stat.S_IMODE((session / "undo").stat().st_mode) == 0o700
    for path in (session / "undo").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_place_that_cannot_be_written_is_said_and_does_no_harm(
    tmp_path: Path, file: Path
) -> None:
    (tmp_path / "file").write_text("not a directory")
    snapshots = Snapshots(tmp_path / "file/s", [file.parent])
    change(snapshots, file, A, B)
    snapshots.command_ran()
    assert snapshots.last_turn() is None
    assert snapshots.failure


def test_a_change_that_could_not_be_saved_is_named(tmp_path: Path, file: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    snapshots = Snapshots(tmp_path / "file/s", [file.parent])
    change(snapshots, file, A, B)
    assert snapshots.failure.startswith(f"what {file} was cannot be saved for undo: ")


def test_names_that_are_no_utf8_are_kept(snapshots: Snapshots, file: Path) -> None:
    odd = file.with_name(os.fsdecode(b"caf\xe9"))
    change(snapshots, odd, A, B)
    assert last(snapshots).path == odd


def test_commands_of_the_turn_and_since_are_remembered(snapshots: Snapshots, file: Path) -> None:
    snapshots.command_ran()
    snapshots.new_turn()
    change(snapshots, file, A, B)
    turn = snapshots.last_turn()
    assert turn is not None
    assert not turn.had_commands
    snapshots.new_turn()
    snapshots.command_ran()
    turn = snapshots.last_turn()
    assert turn is not None
    assert turn.had_commands


def test_the_latest_session_that_changed_files_here_is_found(tmp_path: Path, file: Path) -> None:
    sessions, other = tmp_path / "sessions", tmp_path / "other"
    for name, root in (("1", file.parent), ("2", file.parent), ("3", other)):
        snapshots = Snapshots(sessions / name, [root])
        change(snapshots, root / "x", A, B)
        snapshots.close()
    asked = Snapshots(sessions / "4", [file.parent])  # a session that only ran a command
    asked.command_ran()
    asked.close()
    assert latest_changed(sessions, file.parent) == sessions / "2"
    assert latest_changed(sessions, other) == sessions / "3"
    assert latest_changed(sessions, tmp_path) is None
    assert latest_changed(tmp_path / "nowhere", file.parent) is None
