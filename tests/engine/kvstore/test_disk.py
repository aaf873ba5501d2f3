"""What is stored comes back byte for byte, is there for every process, and is kept once."""

import os
import stat
from pathlib import Path

import pytest

from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.fileformat import CHUNK

BUDGET = 1 << 30


@pytest.fixture
def store(tmp_path: Path):
    disk = Disk(tmp_path / "kv", BUDGET)
    yield disk
    disk.close()


@pytest.mark.parametrize(
    "size", [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5]
)
def test_what_is_stored_comes_back(store: Disk, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    written = store.put("r/rows", "a", [data])
    assert bytes(store.get("r/rows", "a")) == data
    assert written == (tmp_path / "kv/r/rows/a").stat().st_size
    assert bytes(Disk(tmp_path / "kv", BUDGET).get("r/rows", "a")) == data


def test_parts_of_any_shape_are_one_payload(store: Disk) -> None:
    import numpy as np

    parts = [b"x", np.arange(12, dtype=np.int32).reshape(3, 4), b"", np.zeros((0, 4)), bytearray(9)]
    store.put("r/rows", "a", (part for part in parts))
    assert bytes(store.get("r/rows", "a")) == b"".join(bytes(part) for part in parts)


def test_a_file_that_is_there_is_not_written_again(store: Disk) -> None:
    store.put("r/rows", "a", [b"one"])
    taken: list[bytes] = []
    assert store.put("r/rows", "a", (taken.append(b"") or b"two" for _ in range(1))) == 0
    assert taken == []
    assert bytes(store.get("r/rows", "a")) == b"one"


def test_names_are_those_of_whole_files(store: Disk) -> None:
    assert store.names("r/rows") == []
    store.put("r/rows", "a", [b"1"])
    store.put("r/rows", "b", [b"2"])
    assert sorted(store.names("r/rows")) == ["a", "b"]
    assert store.has("r/rows", "a")
    assert not store.has("r/rows", "c")
    assert store.get("r/rows", "c") is None


def test_everything_is_private_and_nothing_is_made_before_the_first_put(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "home/kv", BUDGET)
    disk.names("r/rows")
    disk.get("r/rows", "a")
    disk.touch("r/rows", "a")
    disk.hold("r/rows", "a")
    assert list(tmp_path.iterdir()) == []
    old = os.umask(0)
    try:
        disk.put("r/rows", "a", [b"1"])
    finally:
        os.umask(old)
    disk.close()
    for path in (tmp_path / "home").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
