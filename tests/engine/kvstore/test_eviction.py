"""The store stays within its budget: what is needed least goes first, what is held stays, and no
place is left without its rows."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ds4_agent.engine.kvstore import eviction
from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.layout import survey

BLOCK = 4096


def put_place(disk: Disk, name: str, rows=(), size: int = 100) -> int | None:
    header = json.dumps({"rows": list(rows), "tokens": 7}).encode() + b"\n"
    return disk.put("r/places", name, [header, bytes(size)])


def put_row(disk: Disk, name: str, size: int = 100) -> int | None:
    return disk.put("r/rows", name, [name.encode() * size])


def age(tmp_path: Path, name: str, seconds: float) -> None:
    """As if it had been used that long ago."""
    path = tmp_path / "r/places" / name
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))


def fill(tmp_path: Path, blocks: int, names: list[str]) -> Disk:
    """A store of places of one block each; the earlier in `names`, the longer ago."""
    disk = Disk(tmp_path, blocks * BLOCK)
    for number, name in enumerate(names):
        assert put_place(disk, name), disk.failure
        age(tmp_path, name, 1000 - number)
    return disk


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    disk = fill(tmp_path, 9, [f"{n}-p-x" for n in range(8)])  # and a block of the lock
    disk.touch("r/places", "0-p-x")
    assert put_place(disk, "9-p-x")
    left = sorted(disk.names("r/places"))
    assert "1-p-x" not in left
    assert {"0-p-x", "7-p-x", "9-p-x"} <= set(left)
    assert survey(tmp_path).size <= 9 * BLOCK


def test_temporary_places_go_first_and_system_prompts_last(tmp_path: Path) -> None:
    names = ["1-s-x", "2-p-x", "3-a-x", "4-t-x", "5-t-x"]
    disk = fill(tmp_path, 6, names)
    orders = []
    for number in range(10, 16):
        before = set(disk.names("r/places"))
        put_place(disk, f"{number}-s-y")
        orders += sorted(before - set(disk.names("r/places")))
    assert orders[:5] == ["4-t-x", "5-t-x", "2-p-x", "3-a-x", "1-s-x"]


def test_rows_go_with_the_last_place_that_needs_them(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 100 * BLOCK)
    for row in ("shared", "only-1", "only-2"):
        put_row(disk, row)
    put_place(disk, "1-p-x", ["shared", "only-1"])
    put_place(disk, "2-p-x", ["shared", "only-2"])
    disk.close()
    age(tmp_path, "1-p-x", 50)
    disk = Disk(tmp_path, 6 * BLOCK)
    assert put_place(disk, "3-p-x"), disk.failure
    assert sorted(disk.names("r/rows")) == ["only-2", "shared"]
    assert sorted(disk.names("r/places")) == ["2-p-x", "3-p-x"]


def test_what_is_of_no_use_goes_before_any_place(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 100 * BLOCK)
    put_row(disk, "needed")
    put_row(disk, "lost")
    put_place(disk, "1-t-x", ["needed"])
    put_place(disk, "2-s-x", ["lost"])
    put_row(disk, "alone")
    disk.close()
    (tmp_path / "r/rows/lost").unlink()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/file").write_bytes(bytes(100))
    disk = Disk(tmp_path, 7 * BLOCK)
    assert put_place(disk, "3-p-x", size=BLOCK), disk.failure
    assert disk.names("r/rows") == ["needed"]
    assert sorted(disk.names("r/places")) == ["1-t-x", "3-p-x"]
    assert not (tmp_path / "bad/file").exists()


def test_held_places_and_their_rows_stay_and_then_nothing_is_kept(tmp_path: Path) -> None:
    one, other = Disk(tmp_path, 8 * BLOCK), Disk(tmp_path, 8 * BLOCK)
    put_row(one, "row", 2 * BLOCK // 3)
    for name in ("1-t-x", "2-p-x", "3-s-x"):
        put_place(one, name, ["row"])
        one.hold("r/places", name)
    assert put_place(other, "4-p-x", size=3 * BLOCK) is None
    assert other.failure.startswith("the KV cache is off: running sessions use its whole budget")
    assert one.names("r/rows") == ["row"]
    assert len(one.names("r/places")) == 3
    one.close()  # and now they are nobody's
    other = Disk(tmp_path, 8 * BLOCK)
    assert put_place(other, "4-p-x", size=3 * BLOCK)
    assert "1-t-x" not in other.names("r/places")


def test_rows_whose_place_is_still_being_written_stay(tmp_path: Path) -> None:
    """Between the rows and the place another process may need room."""
    one, other = Disk(tmp_path, 8 * BLOCK), Disk(tmp_path, 8 * BLOCK)
    put_row(one, "a")
    put_row(one, "b")
    for number in range(20):
        put_place(other, f"{number}-p-x")
    assert put_place(one, "99-p-x", ["a", "b"])
    assert one.has("r/places", "99-p-x")
    for number in range(20, 40):
        put_place(other, f"{number}-p-x")
    assert one.names("r/rows") == []  # the place is not held, and gone with its rows


def test_a_place_is_not_kept_without_its_rows_and_is_mended_with_them(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 100 * BLOCK)
    assert put_place(disk, "1-p-x", ["a", "b"]) is None
    put_row(disk, "a")
    assert put_place(disk, "1-p-x", ["a", "b"]) is None
    put_row(disk, "b")
    assert put_place(disk, "1-p-x", ["a", "b"])
    (tmp_path / "r/rows/b").write_bytes(b"broken")
    assert disk.get("r/rows", "b") is None
    assert not disk.has("r/places", "1-p-x")
    put_row(disk, "c")
    assert put_place(disk, "1-p-x", ["a", "c"])  # cut differently: the same place
    assert disk.has("r/places", "1-p-x")
    assert b'"c"' in bytes(disk.get("r/places", "1-p-x"))


def test_left_overs_of_killed_writers_count_and_go(tmp_path: Path) -> None:
    Disk(tmp_path, 100 * BLOCK).put("r/rows", "a", [b"x"])
    (tmp_path / "tmp/left").write_bytes(bytes(10 * BLOCK))
    (tmp_path / "tmp/over").write_bytes(bytes(10 * BLOCK))
    assert survey(tmp_path).size >= 20 * BLOCK
    Disk(tmp_path, 10 * BLOCK).put("r/rows", "b", [b"x"])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_files_that_are_not_ours_count_and_stay(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 10 * BLOCK)
    (tmp_path / "notes").write_bytes(bytes(8 * BLOCK))
    assert put_place(disk, "1-p-x", size=2 * BLOCK) is None
    assert (tmp_path / "notes").exists()


def test_one_file_does_not_push_out_everything_else(tmp_path: Path) -> None:
    disk = fill(tmp_path, 9, [f"{n}-p-x" for n in range(8)])
    assert put_place(disk, "9-p-x", size=6 * BLOCK) is None
    assert disk.failure.startswith("the KV cache is off: its budget is too small")
    assert len(disk.names("r/places")) >= 4


def test_the_number_of_files_has_a_limit_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(eviction, "MOST_FILES", 20)
    disk = Disk(tmp_path, 1 << 30)
    for number in range(100):
        assert put_place(disk, f"{number}-p-x"), disk.failure
        assert len(disk.names("r/places")) <= 20
    assert disk.has("r/places", "99-p-x")


class Stores(RuleBasedStateMachine):
    """Two processes' stores in one directory, as far as one process can play them."""

    budget = 40 * BLOCK

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.made = tempfile.TemporaryDirectory()
        self.home = Path(self.made.name)
        self.disks = [Disk(self.home, self.budget), Disk(self.home, self.budget)]
        self.held: set[tuple[int, str]] = set()

    def teardown(self) -> None:
        for disk in self.disks:
            disk.close()
        self.made.cleanup()

    which = st.integers(0, 1)
    number = st.integers(0, 9)

    @rule(which=which, number=number)
    def put(self, which: int, number: int) -> None:
        disk = self.disks[which]
        rows = [f"{n}" for n in range(number // 3 + 1)]
        for row in rows:
            put_row(disk, row, 3000)
        put_place(disk, f"{number}-{'spat'[number % 4]}-x", rows, 500 * number)

    @rule(which=which, number=number)
    def get(self, which: int, number: int) -> None:
        got = self.disks[which].get("r/rows", str(number))
        assert got is None or bytes(got) == str(number).encode() * 3000

    @rule(which=which, number=number)
    def hold(self, which: int, number: int) -> None:
        name = f"{number}-{'spat'[number % 4]}-x"
        if self.disks[which].has("r/places", name):
            self.disks[which].hold("r/places", name)
            self.held.add((which, name))

    @rule(which=which, number=number)
    def corrupt(self, which: int, number: int) -> None:
        path = self.home / "r/rows" / str(number)
        if path.exists():
            with path.open("r+b") as file:
                file.seek(100)
                file.write(b"?")
            assert self.disks[which].get("r/rows", str(number)) is None
            self.held.clear()  # what misses rows is of no use, held or not

    @rule(which=which)
    def restart(self, which: int) -> None:
        self.disks[which].close()
        self.disks[which] = Disk(self.home, self.budget)
        self.held = {(w, name) for w, name in self.held if w != which}

    @rule(days=st.integers(-3000, 3000))
    @precondition(lambda self: self.disks[0].names("r/places"))
    def jump(self, days: int) -> None:
        path = self.home / "r/places" / min(self.disks[0].names("r/places"))
        os.utime(path, (path.stat().st_mtime + 86400 * days,) * 2)

    @invariant()
    def keeps_its_promises(self) -> None:
        found = survey(self.home)
        assert found.size <= self.budget
        assert not found.temps
        for _, name in self.held:
            assert self.disks[0].has("r/places", name)


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("kind", ["t", "s"])
def test_the_folder_of_a_model_that_has_nothing_left_is_removed(tmp_path: Path, kind: str) -> None:
    disk = Disk(tmp_path, 20 * BLOCK)
    disk.put("old/places", f"1-{kind}-x", [b"{}\n"])
    os.utime(tmp_path / "old/places" / f"1-{kind}-x", (0, 0))
    for number in range(30):
        assert put_place(disk, f"{number}-s-x")
    assert not (tmp_path / "old").exists()
