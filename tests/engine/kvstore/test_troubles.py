"""A disk that refuses: nothing is raised, one line says it, what is there is read, and it is tried
again later."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path
from shutil import rmtree

import pytest

from ds4_agent.engine.kvstore.disk import RETRY, Disk
from ds4_agent.engine.kvstore.eviction import Space

BUDGET = 1 << 30


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def small_files() -> Iterator[None]:
    """The kernel refuses files above 4 KiB, as a full disk would refuse them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_file_that_cannot_be_written_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    clock = Clock()
    disk = Disk(tmp_path, BUDGET, clock=clock)
    disk.put("r/rows", "small", [b"x"])
    assert disk.put("r/rows", "large", [b"x" * 10_000]) is None
    assert disk.failure == f"the KV cache is off: cannot write {tmp_path}: File too large"
    assert disk.names("r/rows") == ["small"]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert bytes(disk.get("r/rows", "small")) == b"x"
    assert disk.put("r/rows", "other", [b"x"]) is None  # memory only, for a while
    clock.now += RETRY
    assert disk.put("r/rows", "other", [b"x"])
    assert disk.failure == ""


SMALL_DISK = """
import json, sys
from pathlib import Path
from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.eviction import Space
home = Path(sys.argv[1])
told = []
# A disk of which all is ours, so that it is really full: the reserve is tested elsewhere.
disk = Disk(home / "kv", 1 << 30, space=lambda _: Space(0, 1 << 40))
for n in range(200):
    disk.put("r/rows", str(n), [bytes([n]) * 5000])
    if disk.failure not in told:
        told.append(disk.failure)
names = disk.names("r/rows")
sound = all(bytes(disk.get("r/rows", n)) == bytes([int(n)]) * 5000 for n in names)
print(json.dumps([told, len(names), sound, [p.name for p in (home / "kv/tmp").iterdir()]]))
disk.close()
disk = Disk(home / "kv", 1 << 30)  # and now with the reserve, which is used up
print(json.dumps([disk.put("r/rows", "x", [bytes(9000)]), disk.failure, disk.names("r/rows")]))
"""


def in_small_mount(tmp_path: Path, options: str, program: str) -> list:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    (tmp_path / "program.py").write_text(program)
    run = f"exec {sys.executable} {tmp_path / 'program.py'} {mounted}"
    mount = f"mount -t tmpfs -o {options} none {mounted} && {run}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True)
    if done.returncode != 0 and "Traceback" not in done.stderr:
        pytest.skip("this system lets no test mount a small disk")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_full_disk_is_one_line_and_whole_files(tmp_path: Path) -> None:
    (told, count, sound, temps), (_, _, left) = in_small_mount(tmp_path, "size=400k", SMALL_DISK)
    home = tmp_path / "disk/kv"
    assert told == ["", f"the KV cache is off: cannot write {home}: No space left on device"]
    assert 20 < count < 100
    assert sound
    assert temps == []
    assert len(left) < count  # room was made: 5 % of the disk are free again


def test_a_read_only_disk_is_read(tmp_path: Path) -> None:
    program = f"""
import json, subprocess, sys
from pathlib import Path
from ds4_agent.engine.kvstore.disk import Disk
home = Path(sys.argv[1])
Disk(home / "kv", {BUDGET}).put("r/rows", "a", [b"stored"])
subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
disk = Disk(home / "kv", {BUDGET})
disk.hold("r/rows", "a"), disk.touch("r/rows", "a")
print(json.dumps([bytes(disk.get("r/rows", "a")).decode(), disk.put("r/rows", "b", [b"x"])]))
print(json.dumps(disk.failure))
"""
    read, failure = in_small_mount(tmp_path, "size=1m", program)
    assert read == ["stored", None]
    assert failure.endswith(": Read-only file system")


def test_a_home_that_cannot_hold_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    disk = Disk(tmp_path / "file/kv", BUDGET)
    assert disk.put("r/rows", "a", [b"x"]) is None
    assert disk.failure.startswith(f"the KV cache is off: cannot write {tmp_path / 'file/kv'}: ")
    assert disk.get("r/rows", "a") is None
    assert disk.names("r/rows") == []
    assert not disk.has("r/rows", "a")
    disk.touch("r/rows", "a")
    disk.hold("r/rows", "a")
    disk.close()


def test_a_directory_deleted_under_a_running_process_is_made_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "kv", BUDGET)
    disk.put("r/rows", "a", [b"x"])
    disk.hold("r/rows", "a")
    rmtree(tmp_path / "kv")
    assert disk.get("r/rows", "a") is None
    assert disk.names("r/rows") == []
    assert disk.put("r/rows", "a", [b"x"])
    assert bytes(disk.get("r/rows", "a")) == b"x"
    assert disk.failure == ""


def test_the_last_five_percent_of_the_disk_stay_free(tmp_path: Path) -> None:
    """Also where the budget would allow more, and where others have filled the disk."""
    free = 100_000

    def space(_: Path) -> Space:
        used = sum(-(-p.stat().st_size // 4096) * 4096 for p in tmp_path.rglob("*") if p.is_file())
        return Space(1_000_000, free - used)

    disk = Disk(tmp_path, BUDGET, clock=Clock(), space=space)
    for n in range(30):
        assert disk.put("r/places", str(n), [b"{}\n", bytes(4000)]), disk.failure
        assert space(tmp_path).usable >= 0
    assert 3 < len(disk.names("r/places")) < 20
    assert disk.has("r/places", "29")
    free = 40_000
    assert disk.put("r/places", "x", [b"{}\n", bytes(4000)]) is None
    assert disk.failure == f"the KV cache is off: less than 5 % of the disk is free at {tmp_path}"
    assert disk.has("r/places", "29")  # deleting all of it would not have been enough


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    before = len(os.listdir("/dev/fd"))
    for n in range(200):
        disk.put("r/rows", str(n), [b"x"])
        disk.put("r/places", f"{n}-p-x", [json.dumps({"rows": [str(n)]}).encode() + b"\n"])
        disk.hold("r/places", f"{n}-p-x")
        disk.get("r/rows", str(n))
    assert len(os.listdir("/dev/fd")) <= before + 64
    disk.close()
    assert len(os.listdir("/dev/fd")) == before
    assert disk.put("r/rows", "late", [b"x"]) is None


def test_what_fails_while_parts_are_made_is_raised_and_leaves_nothing(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"one"
        raise KeyboardInterrupt

    disk = Disk(tmp_path, BUDGET)
    with pytest.raises(KeyboardInterrupt):
        disk.put("r/rows", "a", parts())
    assert not disk.has("r/rows", "a")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert disk.put("r/rows", "a", [b"x"])


REFUSED = ("open", "write", "pwrite", "pread", "preadv", "fsync", "rename", "unlink", "mkdir",
           "scandir", "stat", "lstat", "fstat", "utime", "statvfs")  # fmt: skip


@pytest.mark.parametrize("reason", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_whatever_call_is_refused_nothing_is_raised_and_nothing_wrong_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    """The n-th call that touches the disk fails, for every n, and so do all after it, or none."""

    def refused(real, calls: Iterator[int], last: int, *, lasts: bool):
        def call(*arguments, **options):
            now = next(calls)
            if now == last or (lasts and now > last):
                raise OSError(reason, os.strerror(reason))
            return real(*arguments, **options)

        return call

    outcomes = set()
    descriptors = len(os.listdir("/dev/fd"))
    for last, lasts in product(range(1, 60), (False, True)):
        home = tmp_path / f"{last}-{lasts}"
        Disk(home, 10 * 4096).put("r/places", "old", [b"{}\n", b"old"])
        disk = Disk(home, 10 * 4096)
        with monkeypatch.context() as patch:
            calls = count(1)
            for name in REFUSED:
                patch.setattr(os, name, refused(getattr(os, name), calls, last, lasts=lasts))
            disk.has("r/places", "old")
            disk.names("r/places")
            disk.touch("r/places", "old")
            disk.hold("r/places", "old")
            old = disk.get("r/places", "old")
            new = disk.put("r/rows", "new", [b"new" * 5000])
        outcomes.add((old is not None, new is not None))
        assert old is None or bytes(old) == b"{}\nold"
        got = disk.get("r/rows", "new")
        assert bytes(got) == b"new" * 5000 if new else got in (None, b"new" * 5000)
        assert disk.failure or new is not None
        disk.close()
        disk = Disk(home, 10 * 4096)
        assert disk.put("r/rows", "next", [b"next"])
        assert list((home / "tmp").iterdir()) == []
        disk.close()
        assert len(os.listdir("/dev/fd")) == descriptors
    assert {(True, True), (False, False)} <= outcomes


@pytest.mark.parametrize("folder", ["", ".", "..", "r/..", "r/", "/etc", "a/b/c", "tmp", "bad/x"])
def test_a_folder_never_leads_elsewhere(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ValueError, match="no folder of a store"):
        Disk(tmp_path, BUDGET).put(folder, "a", [b"x"])


@pytest.mark.parametrize("name", [".", "..", "a/b", ".hidden", "a\0b", "x" * 300, "a\n"])
def test_a_name_never_leads_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a stored file"):
        Disk(tmp_path, BUDGET).get("r/rows", name)
