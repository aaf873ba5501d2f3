"""Whatever happens to a stored file, what is read is what was stored or nothing; the file is out of
the way then, counted, and can be stored again."""

import os
import shutil
import struct
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from ds4_agent.engine.kvstore import fileformat
from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.quarantine import MOST_BYTES, MOST_FILES, bad_count

BUDGET = 1 << 30
VERSION_1 = (
    b"\x89ds4kv\r\n\x01\0\0\0\0\0\x40\0",  # magic, version, chunk size
    b"payload",
    b"\x7b\x8d\x2d\x5b\xf0\x61\xfe\x32",  # xxh3_64 of it
    b"r/rows/a",
    b"\x07" + bytes(7) + b"\x01\0\0\0\x08\0\0\0",  # of payload, chunks and label
    b"\x18\xd8\xf3\x6d\x27\x53\x47\x0a\x89ds4kv\r\n",
)
SMALL = 64  # bytes a chunk, so that a file of some hundred bytes has several


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fileformat, "CHUNK", SMALL)


def damaged(data: bytes, draw) -> bytes:
    """One thing that disks, file systems and people do to a file."""
    size = len(data)
    at = draw(st.integers(0, size - 1))
    match draw(st.sampled_from(["flip", "cut", "grow", "zero", "swap", "insert", "remove"])):
        case "flip":
            return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        case "cut":
            return data[:at]
        case "grow":
            return data + draw(st.binary(min_size=1, max_size=100))
        case "zero":
            length = draw(st.sampled_from([1, 8, 64, size]))
            return (data[:at] + bytes(length) + data[at + length :])[:size]
        case "swap":  # two chunks have changed places
            one, two = data[16 : 16 + SMALL], data[16 + SMALL : 16 + 2 * SMALL]
            return data[:16] + two + one + data[16 + 2 * SMALL :]
        case "insert":
            return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
        case _:
            return data[:at] + data[at + draw(st.integers(1, 8)) :]


@given(st.data())
def test_a_damaged_file_is_a_miss_and_can_be_stored_again(tmp_path_factory, data) -> None:
    home = tmp_path_factory.mktemp("kv")
    payload = data.draw(st.binary(min_size=0, max_size=400))
    disk = Disk(home, BUDGET)
    disk.put("r/rows", "a", [payload])
    path = home / "r/rows/a"
    whole = path.read_bytes()
    changed = damaged(whole, data.draw)
    path.write_bytes(changed)
    got = disk.get("r/rows", "a")
    if changed == whole:
        assert bytes(got) == payload
    else:
        assert got is None
        assert not path.exists()
        assert disk.damaged == bad_count(home) == 1
        assert disk.put("r/rows", "a", [payload]) == len(whole)
        assert bytes(disk.get("r/rows", "a")) == payload
    disk.close()
    shutil.rmtree(home)


def room(sizes: list[int]) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


@given(st.data())
def test_a_payload_is_read_to_where_it_is_wanted_or_not_taken_for_whole(
    tmp_path_factory, data
) -> None:
    home = tmp_path_factory.mktemp("kv")
    sizes = data.draw(st.lists(st.integers(1, 100), max_size=8))
    line, rest = b'{"tokens": 128}', bytes(range(256)) * 4
    rest = rest[: sum(sizes)]
    disk = Disk(home, BUDGET)
    disk.put("r/rows", "a", [line, b"\n", rest])
    path = home / "r/rows/a"
    whole = path.read_bytes()
    changed = damaged(whole, data.draw)
    path.write_bytes(changed)
    wanted, seen = room(sizes), []
    is_filled = disk.fill("r/rows", "a", lambda first: seen.append(first) or wanted)
    if changed == whole:
        assert is_filled
        assert seen == [line]
        assert b"".join(wanted) == rest
    else:
        assert not is_filled
        assert not path.exists()
        assert disk.damaged == bad_count(home) == 1
    disk.close()
    shutil.rmtree(home)


@pytest.mark.parametrize("sizes", [None, [], [5], [3, 4], [6, 1]])
def test_a_sound_payload_that_is_not_wanted_stays(tmp_path: Path, sizes) -> None:
    disk = Disk(tmp_path, BUDGET)
    disk.put("r/rows", "a", [b"line\n", b"123456"])
    assert not disk.fill("r/rows", "a", lambda _: None if sizes is None else room(sizes))
    assert bytes(disk.get("r/rows", "a")) == b"line\n123456"
    assert disk.damaged == 0


def test_a_payload_without_a_line_is_not_wanted(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    disk.put("r/rows", "a", [b"123456"])
    assert not disk.fill("r/rows", "a", lambda _: room([6]))
    assert bytes(disk.get("r/rows", "a")) == b"123456"


def test_more_pieces_than_one_call_takes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.undo()
    disk = Disk(tmp_path, BUDGET)
    rest = os.urandom(5000)
    disk.put("r/rows", "a", [b"line\n", rest])
    wanted = room([2] * 2500)
    assert disk.fill("r/rows", "a", lambda _: wanted)
    assert b"".join(wanted) == rest


def test_a_file_that_is_written_to_while_it_is_read_is_a_miss(tmp_path: Path) -> None:
    """A sound one of another line has taken its place behind the open descriptor."""
    disk, other = Disk(tmp_path / "kv", BUDGET), Disk(tmp_path / "other", BUDGET)
    disk.put("r/rows", "a", [b"line 1\n", b"123456"])
    other.put("r/rows", "a", [b"line 2\n", b"123456"])
    path = tmp_path / "kv/r/rows/a"

    def plan(_: bytes) -> list[memoryview]:
        with path.open("r+b") as file:
            file.write((tmp_path / "other/r/rows/a").read_bytes())
        return room([6])

    assert not disk.fill("r/rows", "a", plan)


@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_a_miss(tmp_path_factory, junk: bytes) -> None:
    home = tmp_path_factory.mktemp("kv")
    (home / "r/rows").mkdir(parents=True)
    (home / "r/rows/a").write_bytes(junk)
    (home / "r/rows/b").write_bytes(fileformat.MAGIC + junk + fileformat.MAGIC)
    disk = Disk(home, BUDGET)
    assert disk.get("r/rows", "a") is None
    assert disk.get("r/rows", "b") is None
    assert bad_count(home) == 2
    shutil.rmtree(home)


def test_a_file_of_another_name_or_folder_is_a_miss(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    disk.put("r/rows", "a", [b"of a"])
    disk.put("r/rows", "b", [b"of b"])
    disk.put("other/rows", "a", [b"of another model"])
    (tmp_path / "r/rows/a").rename(tmp_path / "kept")
    (tmp_path / "r/rows/b").rename(tmp_path / "r/rows/a")
    (tmp_path / "kept").rename(tmp_path / "r/rows/b")
    assert disk.get("r/rows", "a") is None
    assert disk.get("r/rows", "b") is None
    shutil.copy(tmp_path / "other/rows/a", tmp_path / "r/rows/a")
    assert disk.get("r/rows", "a") is None
    assert bytes(disk.get("other/rows", "a")) == b"of another model"


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_an_older_or_newer_version_is_a_miss(tmp_path: Path, monkeypatch, version: int) -> None:
    """Also one that is sound by its own rules."""
    with monkeypatch.context() as patch:
        patch.setattr(fileformat, "VERSION", version)
        Disk(tmp_path, BUDGET).put("r/rows", "a", [b"of another time"])
    disk = Disk(tmp_path, BUDGET)
    assert disk.get("r/rows", "a") is None
    assert f"version {version}" in (tmp_path / "bad/log").read_text()
    assert disk.put("r/rows", "a", [b"of now"])
    assert bytes(disk.get("r/rows", "a")) == b"of now"


def test_a_length_that_no_memory_holds_is_a_miss(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    disk.put("r/rows", "a", [b"x"])
    path = tmp_path / "r/rows/a"
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, len(data) - 32, 2**63)
    checked = bytes(data[:16] + data[17:-16])
    struct.pack_into("<Q", data, len(data) - 16, xxhash.xxh3_64_intdigest(checked))
    path.write_bytes(data)
    assert disk.get("r/rows", "a") is None


@pytest.mark.parametrize("what", ["link", "directory", "pipe", "dangling"])
def test_what_is_no_file_is_moved_out_of_the_way_and_not_followed(
    tmp_path: Path, what: str
) -> None:
    disk = Disk(tmp_path / "kv", BUDGET)
    disk.put("r/rows", "a", [b"x"])
    path = tmp_path / "kv/r/rows/a"
    victim = tmp_path / "victim"
    path.rename(victim)
    match what:
        case "link":
            path.symlink_to(victim)
        case "dangling":
            path.symlink_to(tmp_path / "nothing")
        case "directory":
            path.mkdir()
        case _:
            os.mkfifo(path)
    before = victim.read_bytes()
    assert not disk.has("r/rows", "a")
    assert disk.names("r/rows") == []
    assert disk.get("r/rows", "a") is None
    assert disk.put("r/rows", "a", [b"y"])
    assert bytes(disk.get("r/rows", "a")) == b"y"
    assert victim.read_bytes() == before
    assert disk.damaged == 1


def test_few_bad_files_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    for number in range(2 * MOST_FILES):
        disk.put("r/rows", f"a{number}", [b"x"])
        (tmp_path / f"r/rows/a{number}").write_bytes(b"broken")
        assert disk.get("r/rows", f"a{number}") is None
    kept = [path for path in (tmp_path / "bad").iterdir() if path.name != "log"]
    assert len(kept) == MOST_FILES
    assert bad_count(tmp_path) == disk.damaged == 2 * MOST_FILES
    for number in range(4):
        path = tmp_path / f"r/rows/big{number}"
        path.touch()
        os.truncate(path, MOST_BYTES // 2)
        assert disk.get("r/rows", path.name) is None
    assert sum(path.stat().st_size for path in (tmp_path / "bad").iterdir()) < 2 * MOST_BYTES


def test_a_payload_is_memory_of_its_own(tmp_path: Path) -> None:
    """What another program does to the file afterwards does not reach what was verified."""
    disk = Disk(tmp_path, BUDGET)
    disk.put("r/rows", "a", [b"x" * 1000])
    got = disk.get("r/rows", "a")
    with (tmp_path / "r/rows/a").open("r+b") as file:
        file.write(bytes(500))
        file.truncate(500)
    assert bytes(got) == b"x" * 1000
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path) not in maps.read_text()


def test_a_file_of_the_first_version_is_this_to_the_byte(tmp_path: Path, monkeypatch) -> None:
    """What is on people's disks: another layout must have another version."""
    monkeypatch.undo()
    Disk(tmp_path, BUDGET).put("r/rows", "a", [b"payload"])
    assert (tmp_path / "r/rows/a").read_bytes() == b"".join(VERSION_1)
