"""Paths: what leads out of the workspace is refused, at the time of the call and at that of use."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ds4_agent.tools.process import Processes
from ds4_agent.tools.registry import builtin_tools, execute
from ds4_agent.tools.types import ToolContext, ToolError
from ds4_agent.tools.workspace import MissingFileError, OutsideError, Workspace, printable


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a.txt", "a.txt"),
        ("./a.txt", "a.txt"),
        ("sub/../a.txt", "a.txt"),
        ("sub//b.txt", "sub/b.txt"),
        (".", "."),
        ("../ws/a.txt", "a.txt"),
    ],
)
def test_paths_are_shown_normalised(root: Path, given: str, shown: str) -> None:
    (root / "sub").mkdir()
    assert Workspace(root).locate(given).shown == shown


def test_absolute_paths_inside_are_shown_relative(root: Path) -> None:
    assert Workspace(root).locate(str(root / "a.txt")).shown == "a.txt"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "sub/../../x", "~/.ssh/id", "~"])
def test_outside_is_refused_by_name(root: Path, path: str) -> None:
    with pytest.raises(OutsideError, match=r"is outside the workspace$") as refused:
        Workspace(root).locate(path)
    assert str(refused.value).startswith(path)


def test_a_directory_with_the_same_beginning_is_outside(root: Path) -> None:
    root.with_name("ws-evil").mkdir()
    with pytest.raises(OutsideError):
        Workspace(root).locate("../ws-evil/a.txt")


def test_links_that_lead_out_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "dir").symlink_to(tmp_path)
    (root / "chain").symlink_to("link")
    for path in ("link", "dir/secret", "dir/new.txt", "chain"):
        with pytest.raises(OutsideError):
            Workspace(root).locate(path)


def test_links_inside_are_followed_and_shown_as_given(root: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    place = Workspace(root).locate("link/a.txt")
    assert (place.shown, place.real) == ("link/a.txt", root / "real/a.txt")


@pytest.mark.parametrize("name", ["read", "search", "edit", "write"])
def test_an_endless_device_inside_is_refused_at_once(root: Path, name: str) -> None:
    arguments: dict[str, dict[str, str]] = {
        "read": {},
        "search": {"pattern": "x"},
        "edit": {"old": "a", "new": "b"},
        "write": {"content": "x"},
    }
    (root / "zero").symlink_to("/dev/zero")
    with Processes() as processes:
        context = ToolContext(Workspace(root, [Path("/dev")]), processes)
        result = execute(builtin_tools(), name, {"path": "zero", **arguments[name]}, context)
    assert result.content == "Error: zero is a device, not a file"


def test_an_extra_root_is_inside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.txt").write_text("x")
    workspace = Workspace(root, [tmp_path / "lib"])
    assert workspace.read(workspace.locate(str(tmp_path / "lib/a.txt"))).data == b"x"


def test_a_directory_swapped_for_a_link_after_the_check_is_not_followed(
    root: Path, tmp_path: Path
) -> None:
    (root / "dir").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.txt").write_text("secret")
    workspace = Workspace(root)
    place = workspace.locate("dir/a.txt")
    (root / "dir").rmdir()
    (root / "dir").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ToolError, match=r"not a directory|symbolic link"):
        workspace.read(place)
    with pytest.raises(ToolError, match=r"not a directory|symbolic link"):
        workspace.write(place, b"x", base=None)
    assert (tmp_path / "elsewhere/a.txt").read_text() == "secret"


def test_a_file_swapped_for_a_link_after_the_check_is_not_followed(
    root: Path, tmp_path: Path
) -> None:
    (root / "a.txt").write_text("old")
    (tmp_path / "victim").write_text("victim")
    workspace = Workspace(root)
    place = workspace.locate("a.txt")
    base = workspace.read(place)
    (root / "a.txt").unlink()
    (root / "a.txt").symlink_to(tmp_path / "victim")
    with pytest.raises(ToolError, match="symbolic link"):
        workspace.write(place, b"new", base=base)
    assert (tmp_path / "victim").read_text() == "victim"


def test_a_swap_race_never_writes_outside(root: Path, tmp_path: Path) -> None:
    """A thread swaps a directory for a link all the time; no write may land behind the link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "real").mkdir()
    (root / "dir").symlink_to("real")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in (outside, root / "real"):
                (root / "new").symlink_to(target)
                os.replace(root / "new", root / "dir")

    thread = threading.Thread(target=swap)
    thread.start()
    workspace = Workspace(root)
    try:
        for number in range(200):
            try:
                place = workspace.locate(f"dir/f{number}")
                workspace.write(place, b"x", base=None)
            except ToolError:
                pass
    finally:
        stop.set()
        thread.join()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "path", [".git/config", ".GIT/hooks/x", "sub/.git/HEAD", ".git", "git~1/x"]
)
def test_git_internals_are_not_written(root: Path, path: str) -> None:
    workspace = Workspace(root)
    with pytest.raises(ToolError, match="git's own files"):
        workspace.write(workspace.locate(path), b"x", base=None)
    assert list(root.iterdir()) == []


def test_ordinary_names_that_resemble_git_are_written(root: Path) -> None:
    workspace = Workspace(root)
    for path in (".gitignore", ".github/workflows/a.yml", "git.py"):
        workspace.write(workspace.locate(path), b"x", base=None)
        assert (root / path).read_bytes() == b"x"


def test_a_loop_of_links_is_one_line(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    workspace = Workspace(root)
    with pytest.raises(ToolError):
        workspace.read(workspace.locate("a/x"))
    with pytest.raises(ToolError, match="loop of links"):
        workspace.read(workspace.locate("a"))


def test_creating_where_something_appeared_meanwhile_is_refused(root: Path) -> None:
    workspace = Workspace(root)
    place = workspace.locate("a.txt")
    with pytest.raises(MissingFileError):
        workspace.read(place)
    (root / "a.txt").write_text("theirs")
    with pytest.raises(ToolError, match="created by someone else"):
        workspace.write(place, b"mine", base=None)
    assert (root / "a.txt").read_text() == "theirs"
    assert [path.name for path in root.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, "a.txt/b"])
def test_senseless_paths_are_one_line(root: Path, path: str) -> None:
    (root / "a.txt").write_text("x")
    workspace = Workspace(root)
    with pytest.raises(ToolError):
        workspace.read(workspace.locate(path))


def test_extended_attributes_are_kept(root: Path) -> None:
    path = root / "a.txt"
    path.write_text("old")
    try:
        os.setxattr(path, "user.origin", b"here")
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    workspace = Workspace(root)
    place = workspace.locate("a.txt")
    workspace.write(place, b"new", base=workspace.read(place))
    assert os.getxattr(path, "user.origin") == b"here"


def test_many_writes_leave_no_descriptor_and_no_file(root: Path) -> None:
    workspace = Workspace(root)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(150):
        place = workspace.locate("a/b.txt")
        base = workspace.read(place) if number else None
        workspace.write(place, str(number).encode(), base=base)
    assert len(os.listdir("/proc/self/fd")) == before
    assert [path.name for path in (root / "a").iterdir()] == ["b.txt"]


def test_names_cannot_forge_a_line() -> None:
    assert printable("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
