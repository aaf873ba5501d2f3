"""`ds4-agent cache`: what is stored is listed, counted, checked, made less and deleted; what a
running agent holds stays."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.agent.sizes import parse_size, shown_size
from ds4_agent.engine.kvstore.disk import Disk

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def call(*arguments: str) -> SimpleNamespace:
        capfdbinary.readouterr()
        code = main(["cache", *arguments])
        out, err = capfdbinary.readouterr()
        is_json = "--json" in arguments and code != 1
        value: Any = json.loads(out) if is_json else out.decode()
        return SimpleNamespace(code=code, out=value, err=err.decode())

    return call


@pytest.fixture
def kv(home: Path) -> Path:
    return home / "cache/kv"


@pytest.fixture
def disk(kv: Path) -> Iterator[Disk]:
    """A system prompt and an answer that share rows; rows that nothing needs."""
    disk = Disk(kv, 10**9)
    for row in ("both", "one", "alone"):
        disk.put("abc/rows", row, [row.encode() * 1000])
    for name, rows, tokens in (("10-s-x", ["both"], 10), ("25-a-y", ["both", "one"], 25)):
        header = json.dumps({"rows": rows, "tokens": tokens}).encode() + b"\n"
        disk.put("abc/places", name, [header, bytes(5000)])
    disk.close()
    other = Disk(kv, 10**9)
    yield other
    other.close()


def test_without_a_store_there_is_nothing_and_nothing_is_made(run: Run, home: Path) -> None:
    assert run("list", "--json").out == []
    assert run("stats", "--json").out["bytes"] == 0
    assert run("verify").out == "0 files are sound (0 B)\n"
    assert run("prune").code == run("clear").code == 0
    assert not home.exists()


def test_list_shows_each_place(run: Run, disk: Disk) -> None:
    disk.touch("abc/places", "10-s-x")
    first, second = run("list", "--json").out
    assert (first["kind"], first["tokens"], first["row_bytes"]) == ("system", 10, 4096)
    assert (second["kind"], second["tokens"], second["row_bytes"]) == ("answer", 25, 8192)
    assert first["model"] == second["model"] == "abc"
    assert first["complete"]
    lines = run("list").out.splitlines()
    assert "system" in lines[0]
    assert "25 tokens" in lines[1]


@pytest.mark.usefixtures("disk")
def test_stats_counts_what_is_there(run: Run, kv: Path) -> None:
    stats = run("stats", "--json").out
    assert stats["places"] == {"system": 1, "answer": 1}
    assert (stats["rows"], stats["unneeded_rows"], stats["damaged"]) == (3, 1, 0)
    assert stats["bytes"] == sum(
        -(-p.stat().st_size // 4096) * 4096 for p in kv.rglob("*") if p.is_file()
    )
    assert "2 (1 system, 1 answer)" in run("stats").out


@pytest.mark.usefixtures("disk")
def test_verify_finds_damage_and_sets_it_aside(run: Run, kv: Path) -> None:
    assert run("verify", "--json").out["files"] == 5
    assert run("verify").code == 0
    path = kv / "abc/rows/one"
    path.write_bytes(path.read_bytes().replace(b"one", b"two", 1))
    done = run("verify", "--json")
    assert done.code == 2
    assert done.out["damaged"] == [{"file": "abc/rows/one", "reason": "chunk 0 of 1 has changed"}]
    assert done.out["incomplete"] == ["abc/places/25-a-y"]
    assert not path.exists()
    again = run("verify")
    assert again.code == 0
    assert "abc/places/25-a-y: rows are missing" in again.out
    assert run("stats", "--json").out["damaged"] == 1
    assert "incomplete" in run("list").out


def test_prune_deletes_what_is_of_no_use_and_then_what_is_least(run: Run, disk: Disk) -> None:
    assert run("prune", "--json").out["deleted"]["files"] == 1
    assert sorted(disk.names("abc/rows")) == ["both", "one"]
    disk.touch("abc/places", "25-a-y")
    assert run("prune", "--budget", "20KB", "--json").out["left"]["files"] == 2
    assert disk.names("abc/places") == ["10-s-x"]  # of a system prompt
    assert disk.names("abc/rows") == ["both"]


def test_prune_goes_by_the_budget_of_the_configuration(run: Run, disk: Disk, home: Path) -> None:
    (home / "config").mkdir()
    (home / "config/config.toml").write_text('[cache]\nbudget = "20KB"\n')
    run("prune")
    assert disk.names("abc/places") == ["10-s-x"]


def test_clear_leaves_only_what_a_running_agent_holds(run: Run, disk: Disk, kv: Path) -> None:
    disk.hold("abc/places", "10-s-x")
    assert run("clear", "--json").out["left"]["files"] == 2
    assert disk.has("abc/places", "10-s-x")
    disk.close()
    done = run("clear")
    assert done.out.startswith("deleted 2 files (")
    assert [path.name for path in kv.rglob("*") if path.is_file()] == ["lock"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: list|stats|verify|prune|clear"),
        (["empty"], "invalid choice"),
        (["prune", "--budget", "much"], "--budget must be a size such as 10GB, not 'much'"),
        (["list", "--budget", "1GB"], "--budget goes with prune"),
    ],
)
def test_a_wrong_command_line_is_one_line(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_store_that_cannot_be_changed_is_one_line(run: Run, kv: Path) -> None:
    kv.mkdir(parents=True)
    (kv / "lock").mkdir()
    done = run("clear")
    assert done.code == 2
    assert f"cannot change {kv}: " in done.err


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("4096", 4096), ("32GB", 32 * 10**9), ("1.5 mb", 1_500_000), ("16GiB", 2**34),
        ("2T", 2 * 10**12), ("", None), ("GB", None), ("-1GB", None), ("1e9", None), ("1 XB", None),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (999_960, "1.0 MB"), (32 * 10**9, "32.0 GB")],
)
def test_sizes_are_shown_short(size: int, text: str) -> None:
    assert shown_size(size) == text
