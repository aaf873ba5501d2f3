"""list: sorted entries, ignored ones left out, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds4_agent.tools import listing


@pytest.fixture
def tree(root: Path) -> Path:
    for path in ("src/b.py", "src/api/c.py", "README.md", "build/x.o", "src/a.log", ".env"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    (root / ".git/info").mkdir(parents=True)
    (root / ".gitignore").write_text("build/\n*.log\n")
    return root


def test_one_level(call, tree: Path) -> None:
    assert call("list").content == ".env\n.gitignore\nREADME.md\nsrc/"
    assert call("list", path="src").content == "api/\nb.py"


def test_depth_shows_paths(call, tree: Path) -> None:
    assert call("list", depth=3).content == (
        ".env\n.gitignore\nREADME.md\nsrc/\nsrc/api/\nsrc/api/c.py\nsrc/b.py"
    )


def test_an_ignored_directory_can_be_asked_for(call, tree: Path) -> None:
    assert call("list", path="build").content == "x.o"


def test_nested_ignore_files_and_negation(call, tree: Path) -> None:
    (tree / "src/.gitignore").write_text("!a.log\nb.py\n")
    assert call("list", path="src").content == ".gitignore\na.log\napi/"


def test_ignore_files_above_the_workspace_count(tree: Path, call, context) -> None:
    (tree / "src/build").mkdir()
    (tree / ".git/info/exclude").write_text("c.py\n")
    context.workspace.__init__(tree / "src")
    assert call("list", depth=2).content == "api/\nb.py"


def test_bad_paths(call, tree: Path) -> None:
    assert call("list", path="README.md").content == "Error: README.md is not a directory; use read"
    assert call("list", path="nope").content == "Error: nope does not exist"
    assert call("list", path="..").content == "Error: .. is outside the workspace"
    assert call("list", depth=0).content == "Error: depth must be at least 1"


def test_empty(call, root: Path) -> None:
    assert call("list").content == ". is empty"


def test_links_are_named_but_not_entered(call, root: Path) -> None:
    (root / "up").symlink_to("..")
    assert call("list", depth=5).content == "up"


def test_names_stay_on_their_line(call, root: Path) -> None:
    (root / "a\nb").touch()
    (root / b"caf\xe9".decode("utf-8", "surrogateescape")).touch()
    assert call("list").content == "a\\nb\ncaf\\udce9"


def test_many_entries_say_that_there_are_more(call, root: Path, monkeypatch) -> None:
    monkeypatch.setattr(listing, "ENTRY_LIMIT", 5)
    for number in range(9):
        (root / f"{number}").touch()
    assert call("list").content == "0\n1\n2\n3\n4\n… more than 5 entries; list a directory below"
