"""A batch that was stopped, killed or cut off goes on where it was, and repeats nothing."""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent.batch.ledger import Saved, read_ledger
from ds4_agent.tools.types import ToolError
from ds4_agent.tools.workspace import Workspace

Batch = Callable[..., SimpleNamespace]
Work = Callable[..., list[dict[str, Any]]]
PROMPT = ("-p", "make n two")
JSON = ("--output-format", "json")
AS_IT_WAS = [f"# {name}\nn = 1\n" for name in "abcd"]
ALL_DONE = [f"# {name}\nn = 2\n" for name in "abcd"]


def texts(tree: Path, names: str = "abcd") -> list[str]:
    return [(tree / f"src/{name}.py").read_text() for name in names]


def ledger(home: Path) -> Saved | None:
    folders = list(home.glob("data/batches/*"))
    assert len(folders) <= 1
    return read_ledger(folders[0]) if folders else None


def has_state(home: Path, item: int, state: str) -> Callable[[], bool]:
    def look() -> bool:
        saved = ledger(home)
        return saved is not None and saved.entry(item).state == state

    return look


def test_killed_while_the_model_works_on_the_second_item(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
) -> None:
    hangs = {**work("src/b.py")[0], "delay_ms": 600_000}
    process = start([*work("src/a.py"), hangs], "src/[a-c].py", *PROMPT, *JSON)
    wait_for(has_state(home, 2, "running"), process)
    process.kill()
    process.wait()
    assert texts(tree, "abc") == [ALL_DONE[0], *AS_IT_WAS[1:3]]

    done = batch([*work("src/b.py"), *work("src/c.py")], "--resume", *JSON)

    assert done.code == 0, done.err
    assert texts(tree, "abc") == ALL_DONE[:3]
    assert done.result["batch"]["changed"] == 3
    saved = ledger(home)
    assert saved is not None
    assert saved.is_finished
    runs = (saved.folder / "ledger.jsonl").read_text().count('"item":1,"state":"running"')
    assert runs == 1
    assert batch([], "--resume").code == 1, "it is finished"


def test_killed_while_a_check_runs_the_file_is_taken_back_and_the_model_not_asked_again(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
) -> None:
    verify = "test -e goes_on || { touch waits; sleep 600; }"
    arguments = ("src/[a-b].py", *PROMPT, *JSON, "--verify", verify)
    process = start(work("src/a.py"), *arguments)
    wait_for((tree / "waits").exists, process)
    process.kill()
    process.wait()
    assert texts(tree, "ab") == [ALL_DONE[0], AS_IT_WAS[1]], "the check looks at the change"

    (tree / "goes_on").touch()
    done = batch(work("src/b.py"), "--resume", *JSON)  # no step for a.py

    assert done.code == 0, done.err
    assert texts(tree, "ab") == ALL_DONE[:2]
    assert [item["tries"] for item in done.result["items"]] == [1, 1]


def test_killed_in_the_second_try_the_check_of_the_first_is_not_repeated(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
    tmp_path: Path,
) -> None:
    seen = tmp_path / "seen"
    verify = f"cat src/a.py >> {seen}; echo not two; grep -q 'n = 2' src/a.py"
    hangs = {**work("src/a.py")[0], "expect": "check", "delay_ms": 600_000}
    arguments = ("src/a.py", *PROMPT, *JSON, "--verify", verify)
    process = start([*work("src/a.py", "n = 5"), hangs], *arguments)
    wait_for(has_state(home, 1, "refused"), process)
    process.kill()
    process.wait()
    steps = work("src/a.py")
    steps[0]["expect"] = "(?s)An earlier try was taken back.*not two"
    done = batch(steps, "--resume", *JSON)
    assert done.code == 0, done.err
    assert texts(tree, "a") == ALL_DONE[:1]
    assert done.result["items"][0]["tries"] == 2
    assert seen.read_text() == "# a\nn = 5\n# a\nn = 2\n", "a check was made twice"


def test_what_a_killed_batch_left_and_somebody_changed_is_left_to_him(
    start: Callable[..., Any], wait_for: Callable[..., None], batch: Batch, work: Work, tree: Path
) -> None:
    process = start(work("src/a.py"), "src/a.py", *PROMPT, "--verify", "touch waits; sleep 600")
    wait_for((tree / "waits").exists, process)
    process.kill()
    process.wait()
    (tree / "src/a.py").write_text("mine\n")

    done = batch([], "--resume", *JSON, "--verify", "true")

    assert done.code == 5
    assert "left alone" in done.err
    assert "changed by someone else" in done.result["items"][0]["reason"]
    assert texts(tree)[0] == "mine\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_in_good_order(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
    number: signal.Signals,
    code: int,
) -> None:
    verify = "test -e goes_on || { touch waits; sleep 600; }"
    process = start(work("src/a.py"), "src/[a-b].py", *PROMPT, *JSON, "--verify", verify)
    wait_for((tree / "waits").exists, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert texts(tree, "ab") == AS_IT_WAS[:2], "the change under the check is taken out"
    result = json.loads(out.splitlines()[-1])
    assert (result["subtype"], result["batch"]["pending"]) == ("aborted", 2)
    assert b"--resume" in err

    (tree / "goes_on").touch()
    done = batch(work("src/b.py"), "src/[a-b].py", *PROMPT, *JSON, "--resume", "--verify", verify)
    assert done.code == 0, done.err
    assert texts(tree, "ab") == ALL_DONE[:2]


def test_a_signal_while_the_model_writes(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
) -> None:
    process = start([{**work("src/a.py")[0], "delay_ms": 600_000}], "src/a.py", *PROMPT, *JSON)
    wait_for(has_state(home, 1, "running"), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert batch(work("src/a.py"), "--resume").code == 0
    assert texts(tree)[0] == ALL_DONE[0]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; files are synced otherwise")
@pytest.mark.parametrize("cut", ["", "1"], ids=["killed", "power cut"])
@pytest.mark.parametrize("commit", ["", "each"])
def test_killed_at_any_instant(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
    run_git: Callable[..., str],
    cut: str,
    commit: str,
) -> None:
    arguments = ["src/[ab].py", *PROMPT, *JSON, "--verify", "grep -q 'n = 2' {path}"]
    arguments += [f"--commit={commit}"] if commit else []
    steps = {1: work("src/a.py"), 2: work("src/b.py")}
    first = run_git(tree, "rev-parse", "HEAD").strip()
    instants = 0
    for at in range(2, 200, 5 if commit else 3):
        process = start([*steps[1], *steps[2]], *arguments, DIE_AT=str(at), CUT=cut)
        process.communicate(timeout=60)
        if process.returncode == 0:
            break
        instants += 1
        assert process.returncode == -signal.SIGKILL
        assert set(texts(tree, "ab")) <= {*AS_IT_WAS, *ALL_DONE}, "a torn file"
        saved = ledger(home)
        if saved is None:  # killed before the batch had begun
            assert texts(tree, "ab") == AS_IT_WAS[:2]
        elif saved.is_finished:
            assert texts(tree, "ab") == ALL_DONE[:2]
        else:
            left = [n for n in (1, 2) if saved.entry(n).state in ("pending", "running")]
            done = batch([step for n in left for step in steps[n]], "--resume", *JSON)
            assert done.code == 0, (at, done.err)
            assert done.result["batch"]["changed"] == 2
            assert texts(tree, "ab") == ALL_DONE[:2]
            if commit:
                made = run_git(tree, "log", "--format=%s", f"{first}..").split("\n")
                assert sorted(filter(None, made)) == [f"src/{n}.py: make n two" for n in "ab"]
                assert run_git(tree, "status", "--porcelain") == ""
        run_git(tree, "reset", "-q", "--hard", first)
        assert not list(tree.rglob("*.ds4tmp")), "what a killed write leaves is swept"
        for folder in home.glob("data/batches/*"):
            folder.rename(home / f"old-{at}")
    assert instants >= 3


def test_one_batch_is_run_by_one_process(
    start: Callable[..., Any], wait_for: Callable[..., None], batch: Batch, work: Work, home: Path
) -> None:
    process = start([{**work("src/a.py")[0], "delay_ms": 600_000}], "src/a.py", *PROMPT)
    wait_for(has_state(home, 1, "running"), process)
    done = batch(work("src/a.py"), "--resume")
    assert done.code == 1
    assert f"is under way (process {process.pid})" in done.err


def test_two_batches_at_once_do_not_see_each_others_unfinished_changes(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
) -> None:
    verify = "test -e goes_on || { touch waits; while ! test -e goes_on; do sleep 0.05; done; }"
    process = start(work("src/a.py", "n = 9"), "src/a.py", *PROMPT, "--verify", f"{verify}; false")
    wait_for((tree / "waits").exists, process)
    (lock,) = home.glob("state/batches/*.lock")
    with lock.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other = start(work("src/b.py"), "src/b.py", *PROMPT, "--verify", "grep -q 'n = 1' src/a.py")

    def is_waiting() -> bool:
        saved = [read_ledger(folder) for folder in home.glob("data/batches/*")]
        return sum(s is not None and s.entry(1).state == "edited" for s in saved) == 2

    wait_for(is_waiting, other)
    assert texts(tree, "ab") == ["# a\nn = 9\n", AS_IT_WAS[1]], "the other one waits"
    (tree / "goes_on").touch()
    assert other.wait(timeout=60) == 0, other.communicate()
    assert texts(tree, "ab") == [AS_IT_WAS[0], ALL_DONE[1]]


def test_the_disk_is_full(
    batch: Batch, work: Work, tree: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def write(descriptor: int, data: Any) -> int:
        if b'"state":"edited"' in bytes(data):
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    done = batch(work("src/a.py"), "src/[ab].py", *PROMPT, *JSON)
    monkeypatch.undo()
    assert done.code == 2
    assert "cannot be written down" in done.err
    assert "no space left" in done.err.lower()
    assert texts(tree, "ab") == AS_IT_WAS[:2]
    monkeypatch.setenv("DS4_HOME", str(home))
    assert batch([*work("src/a.py"), *work("src/b.py")], "--resume").code == 0
    assert texts(tree, "ab") == ALL_DONE[:2]


def test_the_items_are_those_of_the_beginning(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
) -> None:
    hangs = {**work("src/b.py")[0], "delay_ms": 600_000}
    process = start([*work("src/a.py"), hangs], "src/[a-c].py", *PROMPT)
    wait_for(has_state(home, 2, "running"), process)
    process.kill()
    process.wait()
    (tree / "src/c.py").unlink()
    done = batch(work("src/b.py"), "--resume", *JSON)
    assert done.code == 5
    assert [item["state"] for item in done.result["items"]] == ["changed", "changed", "failed"]


def test_the_worked_example_is_the_same_after_a_resume(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
) -> None:
    hangs = {**work("src/b.py")[0], "delay_ms": 600_000}
    process = start([*work("src/a.py"), hangs], "src/[a-d].py", *PROMPT)
    wait_for(has_state(home, 2, "running"), process)
    process.kill()
    process.wait()
    saved = ledger(home)
    assert saved is not None
    assert saved.example is not None
    steps = [step for name in "bcd" for step in work(f"src/{name}.py")]
    done = batch(steps, "--resume", *JSON)
    assert done.code == 0, done.err
    again = ledger(home)
    assert again is not None
    assert again.example == saved.example
    text = (again.folder / "ledger.jsonl").read_text()
    assert text.count('"type":"example"') == 1
    prefill = done.result["batch"]["prefill"]
    assert prefill["shared_tokens"] > len(saved.example["ids"])


def test_a_damaged_line_costs_that_line(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    work: Work,
    tree: Path,
    home: Path,
) -> None:
    hangs = {**work("src/b.py")[0], "delay_ms": 600_000}
    process = start([*work("src/a.py"), hangs], "src/[a-b].py", *PROMPT)
    wait_for(has_state(home, 2, "running"), process)
    process.kill()
    process.wait()
    saved = ledger(home)
    assert saved is not None
    with (saved.folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"type":"state","item":2,"sta')
    assert batch(work("src/b.py"), "--resume").code == 0
    assert texts(tree, "ab") == ALL_DONE[:2]


def test_a_file_that_cannot_be_put_back_is_put_back_by_the_resume(
    batch: Batch, work: Work, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_back(*arguments: object, **more: object) -> None:
        raise ToolError("cannot write src/a.py: no space left on device")

    monkeypatch.setattr(Workspace, "put_back", put_back)
    arguments = ("--verify", "false", "--retries", "0")
    done = batch(work("src/a.py"), "src/a.py", *PROMPT, *arguments)
    assert done.code == 2
    assert "no space left" in done.err
    assert texts(tree)[0] == ALL_DONE[0]
    monkeypatch.undo()
    monkeypatch.setenv("DS4_HOME", str(tree.parent / "home"))
    assert batch([], "--resume").code == 5
    assert texts(tree)[0] == AS_IT_WAS[0]


def test_a_thousand_items(
    batch: Batch, play: SimpleNamespace, tree: Path, tmp_path: Path, home: Path
) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(f'{{"path": "src/a.py", "n": {n}}}\n' for n in range(1000)))
    steps = [{**play.say(f"Seen {n}."), "expect": f"question {n} about"} for n in range(1000)]
    done = batch(steps, "--items", str(items), "-p", "question {item.n} about {path}", *JSON)
    assert done.code == 0, done.err
    assert [item["text"] for item in done.result["items"]] == [f"Seen {n}." for n in range(1000)]
    assert done.result["batch"]["unchanged"] == 1000
