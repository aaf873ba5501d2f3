"""Prompts outlive their session, and are found again."""

import stat
from pathlib import Path

from ds4_agent.tui.history import KEPT, LONGEST, History, history_file, matching


def test_the_next_session_of_the_directory_has_them(tmp_path: Path):
    file = history_file(tmp_path / "state", tmp_path)
    first = History(file)
    for text in ("one", "two\nlines", "two\nlines", "  "):
        first.add(text)
    assert History(file).entries == ["one", "two\nlines"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert history_file(tmp_path / "state", tmp_path / "other") != file


def test_a_directory_is_the_same_by_every_name(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert history_file(tmp_path, tmp_path / "link") == history_file(tmp_path, tmp_path)


def test_damage_costs_only_itself(tmp_path: Path):
    file = tmp_path / "h.jsonl"
    History(file).add("good")
    with file.open("ab") as opened:
        opened.write(b'{"text": "unfini')
    History(file).add("after")
    assert History(file).entries == ["good", "after"]


def test_it_does_not_grow_for_ever_and_keeps_no_pasted_log(tmp_path: Path):
    file = tmp_path / "h.jsonl"
    history = History(file)
    for number in range(2 * KEPT):
        history.add(f"prompt {number}")
    history.add("x" * (LONGEST + 1))
    assert len(history.entries) == 2 * KEPT + 1  # of this run all
    assert History(file).entries[-1] == f"prompt {2 * KEPT - 1}"
    assert len(History(file).entries) == KEPT
    assert file.stat().st_size < 100_000


def test_a_history_that_cannot_be_written_harms_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("")
    history = History(tmp_path / "file" / "h.jsonl")
    history.add("one")
    assert history.entries == ["one"]


def test_a_search_finds_every_word_newest_first_and_each_once():
    entries = ["Fix the Parser", "run tests", "fix the lexer", "run tests"]
    assert matching(entries, "FIX the") == ["fix the lexer", "Fix the Parser"]
    assert matching(entries) == ["run tests", "fix the lexer", "Fix the Parser"]
