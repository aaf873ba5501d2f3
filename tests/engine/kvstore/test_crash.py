"""Killed at any call that touches the disk, a put leaves the whole file or none, what was stored
before is untouched, and the next put finds a store in order.

A child process is ended at its n-th call, for every n: before the call, and, of a write, in its
middle. Nothing of Python's is flushed then, as with SIGKILL.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = r"""
import json, os, shutil, sys
from itertools import count
from pathlib import Path

from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.layout import survey

home, work, torn = Path(sys.argv[1]) / "a/kv", sys.argv[2], sys.argv[3] == "torn"
CALLS = ("open", "write", "pwrite", "fsync", "rename", "unlink", "mkdir", "rmdir", "utime")
CALLS = ("write",) if torn else CALLS
PARTS = [b"first part, " * 50, b"second part, " * 50]
EVICTING = 40_000  # bytes: the files of `setting` fill it


def place(*rows):
    return [json.dumps({"rows": rows}).encode() + b"\n", b"x" * 4000]


def setting():
    shutil.rmtree(home.parent, ignore_errors=True)
    if work == "evict":
        disk = Disk(home, EVICTING)
        for n in range(3):
            disk.put("r/rows", f"{n}", [b"x" * 4000])
            disk.put("r/places", f"00{n}-p-x", place(f"{n}"))
        disk.close()
    elif work == "put":
        Disk(home, 10**9).put("r/rows", "old", PARTS)


def act():
    disk = Disk(home, EVICTING if work == "evict" else 10**9)
    wrote = disk.put("r/rows", "new", [b"y" * 12000] if work == "evict" else PARTS)
    assert wrote, disk.failure


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


def text(disk, name):
    got = disk.get("r/rows", name)
    return None if got is None else bytes(got).decode()


for last in count(1):
    setting()
    child = os.fork()
    if child == 0:
        arm(last)
        act()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    disk = Disk(home, 10**9)
    found = {
        "new": text(disk, "new"), "old": text(disk, "old"), "bad": disk.damaged,
        "broken": [n for n in disk.names("r/places") if not disk.has("r/places", n)],
        "places": len(disk.names("r/places")),
    }
    next_put = disk.put("r/rows", "next", [b"z"])
    disk.close()
    print(json.dumps(found | {"call": last, "next": next_put, "temps": len(survey(home).temps)}))
    if os.waitstatus_to_exitcode(status) == 0:
        break
    assert os.waitstatus_to_exitcode(status) == 9, status
"""
WHOLE = "first part, " * 50 + "second part, " * 50


def play(tmp_path: Path, work: str, how: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), work, how], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("how", ["before", "torn"])
@pytest.mark.parametrize("work", ["first", "put"])
def test_a_put_killed_at_any_call(tmp_path: Path, work: str, how: str) -> None:
    told = play(tmp_path, work, how)
    assert len(told) > (3 if how == "torn" else 8)  # the calls are really counted
    for one in told:
        assert one["new"] in (None, WHOLE), one
        assert one["old"] == (WHOLE if work == "put" else None), one
        assert one["bad"] == one["temps"] == 0, one
        assert one["next"], one
    assert told[0]["new"] is None
    assert told[-1]["new"] == WHOLE


def test_an_eviction_killed_at_any_call_leaves_no_place_without_its_rows(tmp_path: Path) -> None:
    told = play(tmp_path, "evict", "before")
    assert len({one["places"] for one in told}) > 1  # something was deleted
    for one in told:
        assert one["broken"] == [], one
        assert one["new"] in (None, "y" * 12000), one
        assert one["bad"] == one["temps"] == 0, one


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path: Path) -> None:
    program = (
        PROGRAM.split("for last in count(1):")[0]
        + r"""
def told(name, real):
    def call(*arguments, **options):
        path = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else arguments[0]
        print(json.dumps([name, Path(path).parent.name, Path(path).name]))
        return real(*arguments, **options)
    return call
setting()
for name in ("fsync", "rename"):
    setattr(os, name, told(name, getattr(os, name)))
act()
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "put", "before"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    content, rename, directory = (json.loads(line) for line in done.stdout.splitlines())
    assert content[:2] == ["fsync", "tmp"]
    assert rename == ["rename", *content[1:]]
    assert directory == ["fsync", "r", "rows"]
