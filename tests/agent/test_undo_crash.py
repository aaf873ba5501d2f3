"""Killed at any call that touches the disk, an edit and an undo leave the old bytes or the new
ones, and an undo still works.

A child process is ended at its n-th call, for every n: before the call, and, of a write, in its
middle. Nothing of Python's is flushed then, as with SIGKILL.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ds4_agent.agent.undo import Undo
from ds4_agent.sessions.snapshots import Snapshots
from ds4_agent.tools.workspace import Workspace

PROGRAM = r"""
import json, os, shutil, sys
from itertools import count
from pathlib import Path

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.undo import Undo
from ds4_agent.sessions.snapshots import Snapshots
from ds4_agent.tools.workspace import Workspace

base, work, torn = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "torn"
CALLS = ("open", "write", "fsync", "rename", "unlink", "mkdir", "rmdir", "fchmod", "ftruncate")
CALLS = ("write",) if torn else CALLS
root, session = base / "ws", base / "session"


def opened():
    snapshots = Snapshots(session, [root])
    return snapshots, Workspace(root, watch=snapshots)


def edit(workspace, name, new):
    place = workspace.locate(name)
    base = workspace.read(place) if (root / name).exists() else None
    workspace.write(place, new, base=base)


def work_edit():
    snapshots, workspace = opened()
    edit(workspace, "a.txt", b"new a")
    edit(workspace, "made/b.txt", b"new b")
    edit(workspace, "a.txt", b"newer a")


def undo():
    try:
        return [(f.shown, f.what, f.reason) for f in Undo(*opened()).last_turn().files]
    except UsageError:
        return None


def setting():
    for directory in (root, session):
        shutil.rmtree(directory, ignore_errors=True)
    root.mkdir()
    (root / "a.txt").write_bytes(b"old a")
    (root / "a.txt").chmod(0o750)
    snapshots, workspace = opened()
    edit(workspace, "a.txt", b"first a")  # an earlier turn, which no crash may lose
    snapshots.close()
    if work == "undo":
        work_edit()


def arm(last):
    calls = count(1)

    def watched(name, real):
        def call(*arguments, **options):
            if next(calls) == last:
                if torn:
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os._exit(9)
            return real(*arguments, **options)
        return call

    for name in CALLS:
        setattr(os, name, watched(name, getattr(os, name)))


def state():
    names = ("a.txt", "made/b.txt")
    files = {n: (root / n).read_text() if (root / n).exists() else None for n in names}
    return files | {"mode": oct((root / "a.txt").stat().st_mode & 0o777)}


for last in count(1):
    setting()
    child = os.fork()
    if child == 0:
        arm(last)
        work_edit() if work == "edit" else undo()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    crashed = state()
    journal = (session / "undo/journal").read_bytes()
    was_ended = b'"undone"' in journal.rpartition(b"\n")[0]
    undone = undo()
    after = state()
    print(json.dumps({
        "call": last, "crashed": crashed, "undone": undone, "after": after, "was_ended": was_ended,
        "first": undo(), "start": state(), "made": (root / "made").exists(),
    }))
    if os.waitstatus_to_exitcode(status) == 0:
        break
    assert os.waitstatus_to_exitcode(status) == 9, status
"""
FIRST = {"a.txt": "first a", "made/b.txt": None, "mode": "0o750"}
START = FIRST | {"a.txt": "old a"}
LAST = {"a.txt": "newer a", "made/b.txt": "new b", "mode": "0o750"}


def play(tmp_path: Path, work: str, how: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), work, how], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("how", ["before", "torn"])
def test_an_edit_killed_at_any_call(tmp_path: Path, how: str) -> None:
    told = play(tmp_path, "edit", how)
    assert len(told) > (10 if how == "torn" else 40)  # the calls are really counted
    for one in told:
        assert one["crashed"]["a.txt"] in ("first a", "new a", "newer a"), one
        assert one["crashed"]["made/b.txt"] in (None, "new b"), one
        assert one["crashed"]["mode"] == "0o750", one
        if one["crashed"] == FIRST:  # nothing had happened: the turn before is undone
            assert one["after"] in (FIRST, START), one
        else:
            assert one["after"] == FIRST, one
            if one["crashed"]["made/b.txt"] is not None:
                assert not one["made"], one
            assert all(what != "left" for _, what, _ in one["undone"]), one
        assert one["start"] == START, one
    assert told[-1]["crashed"] == LAST


@pytest.mark.parametrize("how", ["before", "torn"])
def test_an_undo_killed_at_any_call(tmp_path: Path, how: str) -> None:
    told = play(tmp_path, "undo", how)
    assert len(told) > (2 if how == "torn" else 25)
    for one in told:
        assert one["crashed"]["a.txt"] in ("first a", "newer a"), one
        assert one["crashed"]["made/b.txt"] in (None, "new b"), one
        # An undo that did not come to its end is ended first, before the turn before is undone.
        assert one["after"] == (START if one["was_ended"] else FIRST), one
        assert one["start"] == START, one
        assert one["crashed"]["mode"] == one["after"]["mode"] == "0o750", one
    assert told[-1]["crashed"] == FIRST


def test_a_change_is_on_the_disk_in_the_snapshots_before_it_is_made(tmp_path: Path) -> None:
    program = (
        PROGRAM.split("for last in count(1):")[0]
        + r"""
def told(name, real):
    def call(*arguments, **options):
        fsync = name == "fsync"
        path = os.readlink(f"/proc/self/fd/{arguments[0]}") if fsync else str(arguments[0])
        print(json.dumps([name, os.path.basename(path).split(".")[-1]]))
        return real(*arguments, **options)
    return call
setting()
snapshots, workspace = opened()
edit(workspace, "other.txt", b"x")
for name in ("fsync", "rename"):
    setattr(os, name, told(name, getattr(os, name)))
edit(workspace, "a.txt", b"new a")
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "edit", "before"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [tuple(json.loads(line)) for line in done.stdout.splitlines()] == [
        ("fsync", "tmp"),  # the content
        ("rename", "tmp"),
        ("fsync", "undo"),
        ("fsync", "journal"),  # what is about to be done
        ("fsync", "ds4tmp"),
        ("rename", "ds4tmp"),  # the change
        ("fsync", "ws"),
        ("fsync", "journal"),  # it was done
    ]


class Killed(BaseException):
    """The end of a process, in this one."""


def test_an_undo_of_an_edit_killed_midway_is_not_forgotten_when_it_is_killed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    root, session = tmp_path / "ws", tmp_path / "session"
    root.mkdir()

    def write(data: bytes) -> None:
        snapshots = Snapshots(session, [root])
        workspace = Workspace(root, watch=snapshots)
        place = workspace.locate("a")
        base = workspace.read(place) if data != b"one" else None
        workspace.write(place, data, base=base)

    write(b"one")
    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "after_write", killed)
        with pytest.raises(Killed):
            write(b"two")
        patch.setattr(Snapshots, "undo_ended", killed)
        with pytest.raises(Killed):
            Undo(Snapshots(session, [root]), Workspace(root)).last_turn()
    assert (root / "a").read_bytes() == b"one"
    (file,) = Undo(Snapshots(session, [root]), Workspace(root)).last_turn().files
    assert (file.what, (root / "a").read_bytes()) == ("unchanged", b"one")
