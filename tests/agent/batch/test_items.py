"""Which files a batch speaks of, and what its prompts say."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ds4_agent.agent.batch.globs import fits, literal, normal
from ds4_agent.agent.batch.items import Item, Source, gather_items
from ds4_agent.agent.batch.wording import item_command, item_pattern, item_prompt
from ds4_agent.agent.errors import UsageError
from ds4_agent.tools.workspace import Workspace


def paths(root: Path, *globs: str, **source: object) -> list[str]:
    items = gather_items(Source(globs, **source), Workspace(root), lambda _: None)  # type: ignore[arg-type]
    return [item.path for item in items]


@pytest.mark.parametrize(
    ("pattern", "path", "is_one"),
    [
        ("src/**/*.py", "src/a.py", True),
        ("src/**/*.py", "src/x/y/a.py", True),
        ("src/*.py", "src/x/a.py", False),
        ("src/*", "src/x/a.py", False),
        ("**/a.py", "a.py", True),
        ("src/[ab].py", "src/b.py", True),
        ("src/[!ab].py", "src/b.py", False),
        ("src/[!a].py", "src/b.py", True),
        ("src/?.{py,pyi}", "src/a.pyi", True),
        ("src/?.{py,pyi}", "src/a.txt", False),
        ("a+b(1).py", "a+b(1).py", True),
        ("a[1].py", "a[1].py", True),
        ("a?.py", "a/.py", False),
        ("[a/]b", "a/b", False),
    ],
)
def test_patterns(pattern: str, path: str, is_one: bool) -> None:
    assert fits(pattern, path) is is_one


@pytest.mark.parametrize("name", ["a*.py", "x[1]?.py", "{a,b}.py", "**"])
def test_a_literal_stands_for_itself_alone(name: str) -> None:
    assert fits(literal(name), name)
    assert not fits(literal(name), "anything.py")
    assert not fits(literal(name), "a.py")


@pytest.mark.parametrize("pattern", ["../x.py", "/etc/*", "", ".", "a/../../b"])
def test_no_pattern_leads_outside(pattern: str) -> None:
    with pytest.raises(UsageError, match="no pattern"):
        normal(pattern)


def test_what_git_ignores_is_left_out(tree: Path) -> None:
    (tree / ".gitignore").write_text("build/\nsrc/c.py\n")
    (tree / "build").mkdir()
    (tree / "build/a.py").write_text("")
    (tree / "src/link.py").symlink_to("a.py")
    assert paths(tree, "**/*.py") == ["src/a.py", "src/b.py", "src/client.py", "src/d.py"]


def test_names_that_the_shell_has_expanded_are_patterns_too(tree: Path) -> None:
    assert paths(tree, "./src/b.py", "src/a.py") == ["src/a.py", "src/b.py"]


@pytest.mark.parametrize(
    ("globs", "said"),
    [(("lib/*.py",), "no file fits lib"), (("src",), "is a directory"), ((), "which files")],
)
def test_no_item_is_an_error(tree: Path, globs: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        paths(tree, *globs)


def test_one_pattern_of_several_that_fits_nothing_is_told(tree: Path) -> None:
    told: list[str] = []
    items = gather_items(Source(("src/a.py", "lib/*.py")), Workspace(tree), told.append)
    assert [item.path for item in items] == ["src/a.py"]
    assert len(told) == 1
    assert "lib/*.py" in told[0]


def test_files_that_changed_since_a_revision(tree: Path, run_git: Callable[..., str]) -> None:
    (tree / "src/b.py").write_text("changed\n")
    (tree / "src/d.py").unlink()
    (tree / "src/new.py").write_text("new\n")
    run_git(tree, "add", "src/new.py")
    assert paths(tree, revision="HEAD") == ["src/b.py", "src/new.py"]
    assert paths(tree, "src/n*.py", revision="HEAD") == ["src/new.py"]
    assert "src/a.py" in paths(tree, revision="HEAD~1")
    with pytest.raises(UsageError, match="--from-git nowhere"):
        paths(tree, revision="nowhere")
    with pytest.raises(UsageError, match="no revision"):
        paths(tree, revision="--output=x")


def test_a_thousand_changed_files_are_all_found(tree: Path, run_git: Callable[..., str]) -> None:
    name = "a_rather_long_directory_name_so_that_the_list_is_long"
    (tree / name).mkdir()
    for number in range(1500):
        (tree / name / f"module_with_a_long_name_{number:04}.py").write_text("")
    run_git(tree, "add", ".")
    assert len(paths(tree, revision="HEAD")) == 1500


def test_items_of_a_file(tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    lines = [{"path": "src/a.py", "x": "one"}, {"path": "src/new.py", "x": 2}, {"x": {"y": [1]}}]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    items = gather_items(Source(items_file=file), Workspace(tree), lambda _: None)
    assert [(i.number, i.path, i.exists) for i in items] == [
        (1, "src/a.py", True),
        (2, "src/new.py", False),
        (3, "", False),
    ]
    assert item_prompt("{item.x}: {path} {other} {}", items[1]) == "2: src/new.py {other} {}"
    assert item_prompt("{item.x.y}", items[2]) == "[1]"
    with pytest.raises(UsageError, match="no field"):
        item_prompt("{item.z}", items[0])
    with pytest.raises(UsageError, match="no path"):
        item_prompt("{path}", items[2])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "items.jsonl:2: not JSON"),
        ("[1]", "not an object"),
        ('{"path": 3}', "path must be a text"),
        ('{"path": "../x"}', "outside"),
        ('{"path": "src"}', "is a directory"),
    ],
)
def test_a_wrong_item_is_named(tree: Path, tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"path": "src/a.py"}\n' + line + "\n")
    with pytest.raises(UsageError, match=said):
        paths(tree, items_file=file)


def test_a_prompt_without_a_file_gets_it() -> None:
    item = Item(1, "src/a b.py", fields={"x": "*; rm"})
    assert item_prompt("rename f to g", item) == "rename f to g in src/a b.py"
    assert item_prompt("{path}: rename", item) == "src/a b.py: rename"
    assert item_prompt("rename f to {item.x}", item) == "rename f to *; rm in src/a b.py"
    named = Item(1, "a.py", fields={"path": "a.py"})
    assert item_prompt("look at {item.path}", named) == "look at a.py"
    assert item_prompt("say {item.x}", Item(1, "", fields={"x": "hello"})) == "say hello"
    assert item_command("check {path} {item.x}", item) == "check 'src/a b.py' '*; rm'"
    assert item_pattern("t/{item.x}.py", item) == "t/[*]; rm.py"
