"""A model comes from the hub whole and checked, or the directory says that it did not."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.agent.sizes import shown_size

Run = Callable[..., SimpleNamespace]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
WANTED = [
    "config.json", "generation_config.json", *SHARDS, "model.safetensors.index.json",
    "tokenizer.json",
]  # fmt: skip
NAME = "maker/small-v4"


@pytest.fixture
def place(home: Path) -> Path:
    """Where the model goes when no directory is named."""
    return home / "data" / "models" / "maker--small-v4"


def pulled(directory: Path) -> dict[str, bytes]:
    """The files of a directory but our own."""
    names = [path.name for path in directory.iterdir() if not path.name.startswith(".ds4")]
    return {name: (directory / name).read_bytes() for name in sorted(names)}


def wanted(hub: Any) -> dict[str, bytes]:
    return {name: hub.files[name] for name in WANTED}


def test_the_files_that_are_needed_come_and_no_others(
    hub: Any, ds4_model: Run, place: Path, commit: str
) -> None:
    done = ds4_model("pull", NAME)

    assert done.code == 0, done.err
    assert pulled(place) == wanted(hub)
    assert done.out.startswith(f"{NAME} is complete: 6 files, ")
    plan = json.loads(ds4_model("plan", NAME, "--json").out)  # is what was said before
    assert f"in memory: weights {shown_size(plan['weights'])}, " in done.err
    assert f"`ds4-agent model use {NAME}`" in done.out
    record = json.loads((place / ".ds4-pulled.json").read_text())
    assert (record["repository"], record["commit"]) == (NAME, commit)
    assert record["files"][SHARDS[0]]["sha256"] == hashlib.sha256(hub.files[SHARDS[0]]).hexdigest()


def test_it_is_said_before_anything_large_is_read(
    hub: Any, ds4_model: Run, tmp_path: Path, commit: str
) -> None:
    hub.hashes[SHARDS[0]] = 64 * "0"  # and then it fails
    done = ds4_model("pull", NAME, str(tmp_path / "m"))

    said, plan, *_ = done.err.splitlines()
    assert f"{NAME} at {commit[:12]}: 6 files, 11." in said
    assert str(tmp_path / "m") in said
    assert "in memory: weights " in plan
    assert "65,536 tokens of context" in plan


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Any, ds4_model: Run, secret: str) -> None:
    hub.needs_token = True
    assert ds4_model("pull", NAME).code == 0

    tokens = {asked.path.startswith("/cdn/"): asked.token for asked in hub.asked}
    assert tokens == {False: f"Bearer {secret}", True: ""}


def test_a_pulled_model_is_named_by_its_repository(
    hub: Any, ds4_model: Run, place: Path, home: Path, repo: Path, capfd: Any
) -> None:
    assert ds4_model("pull", NAME).code == 0
    info = json.loads(ds4_model("info", NAME, "--json").out)
    assert (info["directory"], info["layers"], info["temperature"]) == (str(place), 5, 0.5)

    assert ds4_model("use", NAME).code == 0
    (nano, mine) = json.loads(ds4_model("list", "--json").out)
    assert (nano["name"], nano["is_default"]) == ("nano", False)
    assert (mine["name"], mine["is_default"], mine["is_complete"]) == (NAME, True, True)
    assert mine["fits"] is True
    assert mine["bytes"] == sum(map(len, wanted(hub).values()))
    assert f"* {NAME}  11." in ds4_model("list").out

    code = main(["-C", str(repo), "--model", NAME, "--max-tokens", "1", "--no-cache", "-p", "hi"])
    assert code == 3  # stopped by its limit: it was loaded, and it ran


def test_a_model_that_was_not_pulled_says_how_it_is(ds4_model: Run) -> None:
    done = ds4_model("info", "maker/other")
    assert done.code == 2
    assert "`ds4-agent model pull maker/other` gets it" in done.err


def test_a_revision_has_a_directory_of_its_own(ds4_model: Run, home: Path, commit: str) -> None:
    assert ds4_model("pull", f"{NAME}@{commit}").code == 0
    assert (home / "data/models" / f"maker--small-v4@{commit}" / SHARDS[0]).is_file()
    assert ds4_model("info", f"{NAME}@{commit}").code == 0
    assert ds4_model("info", NAME).code == 2


def test_what_is_there_is_checked_and_not_read_again(
    hub: Any, ds4_model: Run, tmp_path: Path
) -> None:
    directory = tmp_path / "by other means"
    directory.mkdir()
    (directory / SHARDS[0]).write_bytes(hub.files[SHARDS[0]])

    assert ds4_model("pull", NAME, str(directory)).code == 0
    assert pulled(directory) == wanted(hub)
    assert hub.sent[SHARDS[0]] <= 1 << 20  # its header, for the plan
    assert hub.sent[SHARDS[1]] >= len(hub.files[SHARDS[1]])


def test_a_file_that_was_changed_comes_again(hub: Any, ds4_model: Run, place: Path) -> None:
    assert ds4_model("pull", NAME).code == 0
    data = bytearray(hub.files[SHARDS[1]])
    data[-1] ^= 1
    (place / SHARDS[1]).write_bytes(data)

    assert ds4_model("pull", NAME).code == 0
    assert pulled(place) == wanted(hub)


def test_somebody_elses_file_is_left_alone(hub: Any, ds4_model: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    done = ds4_model("pull", NAME, str(tmp_path))

    assert done.code == 1
    assert "is not the file maker/small-v4 has; name another directory" in done.err
    assert (tmp_path / "config.json").read_text() == "mine"
    assert not (tmp_path / SHARDS[0]).exists()


def test_another_repositorys_directory_is_left_alone(hub: Any, ds4_model: Run, place: Path) -> None:
    assert ds4_model("pull", NAME).code == 0
    hub.repository = "maker/other"
    done = ds4_model("pull", "maker/other", str(place))
    assert done.code == 1
    assert "holds maker/small-v4; name another directory" in done.err


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    hub: Any, ds4_model: Run, place: Path
) -> None:
    whole = len(hub.files[SHARDS[0]])
    # The first connection brings the header, for the plan.
    hub.breaks[SHARDS[0]] = [whole, 3 << 20, 2 << 20]

    assert ds4_model("pull", NAME).code == 0
    assert pulled(place) == wanted(hub)
    ranges = [asked.range for asked in hub.asked if asked.path == f"/cdn/{SHARDS[0]}"][1:]
    assert len(ranges) == 3
    assert ranges[0] == ""
    assert all(text.startswith("bytes=") for text in ranges[1:])
    assert hub.sent[SHARDS[0]] < 2 * whole


def test_a_server_that_knows_no_ranges_is_read_from_the_start_again(
    hub: Any, ds4_model: Run, place: Path
) -> None:
    hub.has_ranges = False
    hub.breaks[SHARDS[0]] = [1 << 30, 3 << 20]
    assert ds4_model("pull", NAME).code == 0
    assert pulled(place) == wanted(hub)


def test_a_busy_server_is_asked_again(hub: Any, ds4_model: Run, place: Path) -> None:
    hub.answers = [200, 200, 503, 429]
    assert ds4_model("pull", NAME).code == 0
    assert pulled(place) == wanted(hub)


def test_a_wrong_hash_throws_the_file_away(hub: Any, ds4_model: Run, place: Path) -> None:
    hub.hashes[SHARDS[1]] = 64 * "a"
    done = ds4_model("pull", NAME)

    assert done.code == 2
    assert f"{SHARDS[1]} came with another hash" in done.err
    assert not (place / SHARDS[1]).exists()
    assert not list(place.glob(f".{SHARDS[1]}*"))
    refused = ds4_model("info", NAME)
    assert refused.code == 2
    assert "its download was stopped" in refused.err

    del hub.hashes[SHARDS[1]]
    assert ds4_model("pull", NAME).code == 0
    assert pulled(place) == wanted(hub)
    assert ds4_model("info", NAME).code == 0


def test_a_new_commit_replaces_the_files_that_changed(
    hub: Any, ds4_model: Run, place: Path
) -> None:
    assert ds4_model("pull", NAME).code == 0
    hub.files["generation_config.json"] = b'{"temperature": 0.9}'
    hub.sent.clear()

    assert ds4_model("pull", NAME).code == 0
    assert pulled(place) == wanted(hub)
    assert hub.sent[SHARDS[0]] <= 1 << 20


def start(hub: Any, *arguments: str) -> subprocess.Popen[str]:
    """`ds4-agent model pull …` as a process, which the hub keeps waiting after 3 MiB of a shard."""
    hub.hold_after = 3 << 20
    return subprocess.Popen(
        [sys.executable, "-m", "ds4_agent", "model", "pull", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def until_it_holds(hub: Any, place: Path) -> None:
    """Both shards have parts on disk, and the hub sends no more of them."""
    assert hub.held.wait(60)
    for _ in range(600):
        parts = [path.stat().st_size for path in place.glob(".*.part")]
        if len(parts) == 2 and all(size >= 2 << 20 for size in parts):
            return
        hub.go_on.wait(0.1)
    pytest.fail(f"no parts came: {parts}")


def test_a_killed_pull_is_refused_and_goes_on_where_it_was(
    hub: Any, ds4_model: Run, place: Path
) -> None:
    process = start(hub, NAME)
    until_it_holds(hub, place)
    process.kill()
    process.communicate()

    refused = ds4_model("plan", NAME)
    assert refused.code == 2
    assert f"`ds4-agent model pull {NAME} {place}` goes on with it" in refused.err
    assert main(["--model", NAME, "--no-cache", "-p", "hi"]) == 2
    (_, entry) = json.loads(ds4_model("list", "--json").out)
    assert (entry["is_complete"], entry["fits"]) == (False, False)
    assert entry["problem"].startswith("incomplete, of 11.")

    hub.hold_after = None
    hub.go_on.set()
    hub.sent.clear()
    assert ds4_model("pull", NAME).code == 0
    assert pulled(place) == wanted(hub)
    for shard in SHARDS:
        assert hub.sent[shard] < len(hub.files[shard])


def test_an_interrupt_keeps_what_came_and_says_how_to_go_on(
    hub: Any, ds4_model: Run, tmp_path: Path
) -> None:
    directory = tmp_path / "my models"
    process = start(hub, NAME, str(directory))
    until_it_holds(hub, directory)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    last = err.splitlines()[-1]
    assert last.startswith("ds4-agent: stopped with ")
    assert last.endswith(f"kept; `ds4-agent model pull {NAME} '{directory}'` goes on")
    assert "Traceback" not in err
    hub.hold_after = None
    hub.go_on.set()
    assert ds4_model("pull", NAME, str(directory)).code == 0


def test_two_at_once_do_not_write_into_one_directory(hub: Any, ds4_model: Run, place: Path) -> None:
    process = start(hub, NAME)
    until_it_holds(hub, place)
    hub.hold_after = None
    try:
        done = ds4_model("pull", NAME)
        assert done.code == 1
        assert "another process pulls into" in done.err
    finally:
        hub.go_on.set()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert pulled(place) == wanted(hub)


def test_a_disk_that_refuses_is_one_line_and_what_came_is_kept(
    hub: Any, ds4_model: Run, place: Path
) -> None:
    limited = f"ulimit -f 3072; exec {sys.executable} -m ds4_agent model pull {NAME}"  # 3 MiB
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert ".part: File too large; stopped with " in last
    assert last.endswith(f"kept, `ds4-agent model pull {NAME}` goes on")
    assert "Traceback" not in done.stderr
    assert ds4_model("info", NAME).code == 2
    hub.sent.clear()
    assert ds4_model("pull", NAME).code == 0
    assert pulled(place) == wanted(hub)


def test_nothing_is_pulled_onto_a_disk_without_room(hub: Any, ds4_model: Run, place: Path) -> None:
    room = shutil.disk_usage("/").total * 1000
    hub.claims[SHARDS[1]] = room
    done = ds4_model("pull", NAME)

    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert "maker/small-v4 needs " in line
    assert " free, of which 268.4 MB stay so: make room, or name a directory" in line
    assert not place.exists()


def test_a_header_longer_than_a_megabyte_is_read_whole(
    hub: Any, ds4_model: Run, place: Path
) -> None:
    data = hub.files[SHARDS[0]]
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length]) | {"__metadata__": {"words": "long " * 500_000}}
    head = json.dumps(header).encode()
    hub.files[SHARDS[0]] = len(head).to_bytes(8, "little") + head + data[8 + length :]

    done = ds4_model("pull", NAME)
    assert done.code == 0
    assert "in memory: weights " in done.err
    assert pulled(place) == wanted(hub)
