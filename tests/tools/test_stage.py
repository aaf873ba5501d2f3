"""A workspace with a stage: what a tool writes is held there, and what it reads comes from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds4_agent.tools.edit import edit
from ds4_agent.tools.files import read, write
from ds4_agent.tools.process import Processes
from ds4_agent.tools.registry import attached_tool, execute
from ds4_agent.tools.types import ToolContext, ToolError, ToolResult
from ds4_agent.tools.workspace import FileBytes, Place, Workspace

TOOLS = tuple(attached_tool(function) for function in (read, write, edit))


class Held:
    """A stage that takes everything but `refused`."""

    def __init__(self) -> None:
        self.files: dict[Path, bytes] = {}
        self.bases: list[bytes | None] = []

    def read(self, path: Path) -> FileBytes | None:
        data = self.files.get(path)
        return None if data is None else FileBytes(data, os.stat(path.parent))

    def write(self, place: Place, data: bytes, base: FileBytes | None) -> None:
        if place.real.name == "refused":
            raise ToolError("refused was not changed")
        self.bases.append(None if base is None else base.data)
        self.files[place.real] = data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with nothing in it."""
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_files_stay_as_they_are(folder: Path) -> None:
    (folder / "a").write_text("one\n")
    stage = Held()
    workspace = Workspace(folder, stage=stage)
    with Processes() as processes:
        context = ToolContext(workspace, processes)

        def call(name: str, **arguments: object) -> ToolResult:
            return execute(TOOLS, name, arguments, context)

        assert "Edited a" in call("edit", path="a", old="one", new="two").content
        assert "two" in call("read", path="a").content
        assert "Created sub/b" in call("write", path="sub/b", content="new\n").content
        refused = call("write", path="refused", content="x")
    assert refused.is_error
    assert (folder / "a").read_text() == "one\n"
    assert sorted(path.name for path in folder.iterdir()) == ["a"]
    assert stage.files == {folder / "a": b"two\n", folder / "sub/b": b"new\n"}
    assert stage.bases == [b"one\n", None]


def test_the_limits_of_writing_hold(folder: Path) -> None:
    (folder / "a").write_text("one\n")
    (folder / "a").chmod(0o444)
    workspace = Workspace(folder, stage=Held())
    place = workspace.locate("a")
    with pytest.raises(ToolError, match="read-only"):
        workspace.write(place, b"x", base=workspace.read(place))
    with pytest.raises(ToolError, match="git's own files"):
        workspace.write(workspace.locate(".git/config"), b"x", base=None)


def test_only_what_a_killed_write_of_that_file_left_is_swept(folder: Path) -> None:
    left = folder / ".a.0123456789ab.ds4tmp"
    kept = [folder / name for name in ("a", ".b.0123456789ab.ds4tmp", ".a.0123.ds4tmp", ".a.x")]
    for path in (left, *kept):
        path.write_text("")
    workspace = Workspace(folder)
    workspace.sweep(workspace.locate("a"))
    workspace.sweep(workspace.locate("nowhere/a"))
    assert sorted(folder.iterdir()) == sorted(kept)
