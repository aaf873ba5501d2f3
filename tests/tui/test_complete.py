"""Completion: when there is something to complete, by what, and what it becomes."""

from pathlib import Path

import pytest

from ds4_agent.tui.complete import Files, Wish, commands_like, fuzzy, replacement, wish_at

NAMES = ["src/client.py", "src/cli.py", "tests/test_client.py", "docs/clip art.txt", "README.md"]


@pytest.mark.parametrize(
    ("before", "wish"),
    [
        ("/re", Wish("command", 0, "re")),
        ("/", Wish("command", 0, "")),
        ("/etc/ho", None),
        ("a /re", None),
        ("/model na", None),
        ("see @src/cl", Wish("file", 4, "src/cl")),
        ("@", Wish("file", 0, "")),
        ('in @"my no', Wish("file", 3, "my no")),
        ("mail a@b", None),
        ("@done ", None),
    ],
)
def test_what_is_asked_for(before, wish):
    assert wish_at(before) == wish


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("cli", "src/cli.py"),
        ("client", "src/client.py"),
        ("tecl", "tests/test_client.py"),
        ("src/cl", "src/cli.py"),
        ("READ", "README.md"),
        ("read", "README.md"),
        ("clart", "docs/clip art.txt"),
    ],
)
def test_the_best_comes_first(query, first):
    assert fuzzy(query, NAMES, 5)[0] == first


def test_capitals_count_where_there_are_any_and_nothing_is_made_up():
    assert fuzzy("CLIENT", NAMES, 5) == []
    assert fuzzy("zzz", NAMES, 5) == []
    assert fuzzy("", ["a/b/c", "z", "a/b"], 2) == ["z", "a/b"]


def test_what_is_put_in():
    assert replacement(Wish("command", 0, "re"), "resume") == "/resume "
    assert replacement(Wish("file", 0, "c"), "src/cli.py") == "@src/cli.py "
    assert replacement(Wish("file", 0, "c"), "docs/clip art.txt") == '@"docs/clip art.txt" '
    assert replacement(Wish("file", 0, "s"), "src/") == "@src/"


def test_files_are_those_git_would_not_ignore(tmp_path: Path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*.log\nbuild/\n")
    for name in ("a.py", "b.log", "build/c.py", "src/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    now = [0.0]
    files = Files(tmp_path, lambda: now[0])
    assert files.known == ()
    assert files.look() == [".gitignore", "a.py", "src/", "src/d.py"]
    (tmp_path / "e.py").write_text("")
    assert "e.py" not in files.look()
    now[0] = 10.0
    assert "e.py" in files.look()


def test_commands_are_those_that_begin_so():
    names = ["help", "theme", "resume", "rewind"]
    assert commands_like("he", names) == ["help"]
    assert commands_like("re", names) == ["resume", "rewind"]
    assert commands_like("wind", names) == ["rewind"]
    assert commands_like("", names) == names
