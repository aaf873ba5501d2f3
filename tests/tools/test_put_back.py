"""Undo's side of the workspace: who watches it hears of each change first, and what is put back is
put back only in place of what it was meant for."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ds4_agent.tools.types import ToolContext, ToolError, ToolResult
from ds4_agent.tools.workspace import Workspace


class Heard:
    """A watch that writes down what it hears, and what stands on the disk at that moment."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.refuses = False

    def before_write(
        self, path: Path, old: bytes | None, mode: int | None, new: bytes | None
    ) -> None:
        if self.refuses:
            raise ToolError("not now")
        now = path.read_bytes() if path.exists() else None
        self.calls.append(("before", path.name, old, mode, new, now))

    def after_write(self, path: Path) -> None:
        now = path.read_bytes() if path.exists() else None
        self.calls.append(("after", path.name, now))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def workspace(root: Path, heard: Heard) -> Workspace:
    return Workspace(root, watch=heard)


def test_a_watch_hears_of_a_change_before_and_after_it(
    root: Path, workspace: Workspace, heard: Heard
) -> None:
    (root / "a").write_bytes(b"old")
    (root / "a").chmod(0o640)
    place = workspace.locate("a")
    workspace.write(place, b"new", base=workspace.read(place))
    workspace.remove(place, base=workspace.read(place))
    workspace.write(place, b"back", base=None)
    assert heard.calls == [
        ("before", "a", b"old", 0o640, b"new", b"old"),
        ("after", "a", b"new"),
        ("before", "a", b"new", 0o640, None, b"new"),
        ("after", "a", None),
        ("before", "a", None, None, b"back", None),
        ("after", "a", b"back"),
    ]


def test_a_refused_change_is_not_announced_or_not_confirmed(
    root: Path, workspace: Workspace, heard: Heard
) -> None:
    (root / "a").write_bytes(b"old")
    place = workspace.locate("a")
    base = workspace.read(place)
    (root / "a").write_bytes(b"theirs")
    with pytest.raises(ToolError):
        workspace.write(place, b"new", base=base)
    assert [call[0] for call in heard.calls] == ["before"]
    (root / "a").chmod(0o444)
    with pytest.raises(ToolError, match="read-only"):
        workspace.write(place, b"new", base=workspace.read(place))
    assert [call[0] for call in heard.calls] == ["before"]


def test_a_watch_can_prevent_a_change(root: Path, workspace: Workspace, heard: Heard) -> None:
    heard.refuses = True
    with pytest.raises(ToolError, match="not now"):
        workspace.write(workspace.locate("new/a"), b"x", base=None)
    assert list(root.iterdir()) == []


def test_a_file_is_removed_only_while_it_is_what_was_seen(root: Path, workspace: Workspace) -> None:
    (root / "a").write_bytes(b"old")
    place = workspace.locate("a")
    base = workspace.read(place)
    (root / "a").write_bytes(b"theirs")
    with pytest.raises(ToolError, match="changed by someone else"):
        workspace.remove(place, base=base)
    workspace.remove(place, base=workspace.read(place))
    assert list(root.iterdir()) == []


def test_a_removed_file_comes_back_with_its_mode(root: Path, workspace: Workspace) -> None:
    place = workspace.locate("sub/a")
    workspace.put_back(place, b"old", base=None, mode=0o755)
    assert (root / "sub/a").read_bytes() == b"old"
    assert stat.S_IMODE((root / "sub/a").stat().st_mode) == 0o755


def test_what_is_put_back_keeps_the_mode_the_file_has_now(root: Path, workspace: Workspace) -> None:
    (root / "a").write_bytes(b"new")
    (root / "a").chmod(0o700)
    place = workspace.locate("a")
    workspace.put_back(place, b"old", base=workspace.read(place), mode=0o644)
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700


@pytest.mark.parametrize("data", [b"old", None])
def test_nothing_is_put_back_over_somebody_elses_change(
    root: Path, workspace: Workspace, data: bytes | None
) -> None:
    (root / "a").write_bytes(b"new")
    place = workspace.locate("a")
    base = workspace.read(place)
    (root / "a").write_bytes(b"theirs")
    with pytest.raises(ToolError, match="changed by someone else"):
        workspace.put_back(place, data, base=base)
    assert (root / "a").read_bytes() == b"theirs"
    assert [path.name for path in root.iterdir()] == ["a"]


def test_directories_made_for_a_file_go_with_it_as_far_as_they_are_empty(
    root: Path, workspace: Workspace
) -> None:
    place = workspace.locate("one/two/three/a")
    workspace.put_back(place, b"x", base=None)
    (root / "one/mine").write_bytes(b"")
    workspace.put_back(place, None, base=workspace.read(place), made=3)
    assert [path.name for path in (root / "one").iterdir()] == ["mine"]


def test_directories_that_were_there_before_stay(root: Path, workspace: Workspace) -> None:
    (root / "one").mkdir()
    place = workspace.locate("one/two/a")
    workspace.put_back(place, b"x", base=None)
    workspace.put_back(place, None, base=workspace.read(place), made=1)
    assert list(root.iterdir()) == [root / "one"]
    place = workspace.locate("a")
    workspace.put_back(place, b"x", base=None)
    workspace.put_back(place, None, base=workspace.read(place), made=9)  # never the root itself
    assert root.is_dir()


def test_what_is_put_back_is_not_announced_and_not_known_to_the_agent(
    root: Path, workspace: Workspace, heard: Heard
) -> None:
    place = workspace.locate("a")
    workspace.write(place, b"new", base=None)
    heard.calls.clear()
    workspace.put_back(place, b"old", base=workspace.read(place))
    assert heard.calls == []
    assert not workspace.was_seen(place)


def test_git_internals_and_hard_links_are_refused(root: Path, workspace: Workspace) -> None:
    (root / "a").write_bytes(b"x")
    os.link(root / "a", root / "b")
    place = workspace.locate("a")
    with pytest.raises(ToolError, match="hard links"):
        workspace.put_back(place, b"y", base=workspace.read(place))
    with pytest.raises(ToolError, match="git's own files"):
        workspace.put_back(workspace.locate(".git/config"), b"y", base=None)


def test_an_edit_after_an_undo_goes_by_what_the_file_is_now(
    root: Path, context: ToolContext, call: Callable[..., ToolResult]
) -> None:
    (root / "a.txt").write_text("one\ntwo\n")
    call("edit", path="a.txt", old="two", new="three")
    place = context.workspace.locate("a.txt")
    base = context.workspace.read(place)
    context.workspace.put_back(place, b"one\ntwo\n", base=base)
    done = call("edit", path="a.txt", old="two", new="four")
    assert not done.is_error
    assert (root / "a.txt").read_text() == "one\nfour\n"
