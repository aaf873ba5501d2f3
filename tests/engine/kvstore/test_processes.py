"""Many processes share one store: many read, one writes at a time, nobody waits for one that died
or was stopped, and what one holds no other deletes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ds4_agent.engine.kvstore import disk as disk_module
from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.layout import survey

BUDGET = 1 << 30
HOLDER = """
import sys, time
from pathlib import Path
from ds4_agent.engine.kvstore.disk import Disk
disk = Disk(Path(sys.argv[1]), 1 << 30)
def parts():
    yield b"first"
    print("writing", flush=True)
    time.sleep(60)
    yield b"second"
if sys.argv[2] == "write":
    disk.put("r/rows", "a", parts())
else:
    disk.hold("r/places", "1-t-x")
    print("holding", flush=True)
    time.sleep(60)
"""
BUSY = """
import json, random, sys
from pathlib import Path
from ds4_agent.engine.kvstore.disk import Disk
home, seed, budget = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
disk = Disk(home, budget)
wrong = 0
for turn in range(150):
    n = random.randrange(40)
    rows = [str(r) for r in range(n % 7)]
    for row in rows:
        disk.put("r/rows", row, [row.encode() * 5000])
    name = f"{n}-{random.choice('spat')}-x"
    disk.put("r/places", name, [json.dumps({"rows": rows}).encode() + b"\\n", bytes([n]) * 9000])
    for row in map(str, range(7)):
        got = disk.get("r/rows", row)
        wrong += got is not None and bytes(got) != row.encode() * 5000
    for name in disk.names("r/places")[:5]:
        got = disk.get("r/places", name)
        wrong += got is not None and bytes(got)[-1] != int(name.split("-")[0])
        disk.touch("r/places", name)
disk.close()
print(json.dumps([wrong, disk.damaged, disk.failure]))
"""


def start(program: str, home: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, str(home), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_processes_that_write_read_and_evict_the_same_files_see_only_whole_ones(
    tmp_path: Path,
) -> None:
    budget = 200_000
    processes = [start(BUSY, tmp_path, seed, budget) for seed in range(3)]
    largest = 0
    while any(process.poll() is None for process in processes):
        largest = max(largest, survey(tmp_path).size)
        time.sleep(0.01)
    for process in processes:
        told, _ = process.communicate()
        assert process.returncode == 0
        assert json.loads(told) == [0, 0, ""]
    # While it is looked at, a file may change its place and be seen twice.
    assert 100_000 < largest <= budget + 3 * 12_288
    assert survey(tmp_path).size <= budget
    disk = Disk(tmp_path, budget)
    assert all(disk.has("r/places", name) for name in disk.names("r/places"))


def test_while_one_writes_others_read_and_do_not_wait_long(tmp_path: Path, monkeypatch) -> None:
    """Not even for one that was stopped; when it is dead, its left-overs are gone."""
    monkeypatch.setattr(disk_module, "WAIT", 0.1)
    disk = Disk(tmp_path, BUDGET)
    disk.put("r/rows", "old", [b"old"])
    writer = start(HOLDER, tmp_path, "write")
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        os.kill(writer.pid, signal.SIGSTOP)
        assert bytes(disk.get("r/rows", "old")) == b"old"
        assert not disk.has("r/rows", "a")
        assert disk.put("r/rows", "b", [b"b"]) is None
        assert disk.failure == ""  # nothing is wrong, it is only not kept this time
        assert len(list((tmp_path / "tmp").iterdir())) == 1
    finally:
        end(writer)
    assert disk.put("r/rows", "a", [b"of another"])
    assert bytes(disk.get("r/rows", "a")) == b"of another"
    assert list((tmp_path / "tmp").iterdir()) == []
    disk.close()


@pytest.mark.parametrize("is_held", [True, False])
def test_what_another_process_holds_is_not_deleted_until_it_ends(
    tmp_path: Path, is_held: bool
) -> None:
    first = Disk(tmp_path, BUDGET)
    first.put("r/places", "1-t-x", [b"{}\n"])
    first.close()
    holder = start(HOLDER, tmp_path, "hold")
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        if not is_held:
            end(holder)
        disk = Disk(tmp_path, 5 * 4096)
        for number in range(10, 20):
            assert disk.put("r/places", f"{number}-p-x", [b"{}\n"])
        assert disk.has("r/places", "1-t-x") == is_held
        disk.close()
    finally:
        if is_held:
            end(holder)


def test_threads_share_a_disk(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    disk = Disk(tmp_path, BUDGET)

    def work(number: int) -> bool:
        name, data = str(number % 5), bytes([number % 5]) * 10_000
        written = disk.put("r/rows", name, [data])
        got = disk.get("r/rows", name)
        return written is not None and got is not None and bytes(got) == data

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(100)))
    assert sorted(disk.names("r/rows")) == list("01234")
    disk.close()
