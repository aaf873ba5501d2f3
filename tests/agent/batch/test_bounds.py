"""What commands of items may leave behind: changes of the item's own files, and nothing else."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent.batch.ledger import read_ledger

Batch = Callable[..., SimpleNamespace]
Work = Callable[..., list[dict[str, Any]]]
PROMPT = ("-p", "make n two")
JSON = ("--output-format", "json")
ANY = ("--allowed-tools", "bash")
AS_IT_WAS = [f"# {name}\nn = 1\n" for name in "abcd"]


def texts(tree: Path) -> list[str]:
    return [(tree / f"src/{name}.py").read_text() for name in "abcd"]


def test_what_a_command_does_beyond_its_item_is_undone_and_the_item_fails(
    batch: Batch, work: Work, play: SimpleNamespace, tree: Path, run_git: Callable[..., str]
) -> None:
    command = (
        "echo bad > src/b.py; rm src/c.py; mkdir -p new/dir; echo x > new/dir/file; "
        "echo x > .git/hooks/pre-commit; echo new > .gitignore; chmod +x src/d.py"
    )
    steps = [
        play.call("edit", path="src/a.py", old="n = 1", new="n = 2"),
        play.call("bash", command=command),
        *work("src/b.py"),
    ]
    done = batch(steps, "src/[ab].py", *PROMPT, *JSON, *ANY)
    assert done.code == 5
    first, second = done.result["items"]
    assert (first["state"], second["state"]) == ("failed", "changed")
    for name in ("src/b.py", ".git/hooks/pre-commit", ".gitignore"):
        assert name in first["reason"]
    assert "removed src/c.py" in first["reason"]
    assert texts(tree) == [AS_IT_WAS[0], "# b\nn = 2\n", *AS_IT_WAS[2:]]
    assert not (tree / "new").exists()
    assert not (tree / ".git/hooks/pre-commit").exists()
    assert run_git(tree, "status", "--porcelain") == " M src/b.py\n"


def test_what_a_command_wrote_elsewhere_is_kept_beside_the_ledger(
    batch: Batch, play: SimpleNamespace, tree: Path, home: Path
) -> None:
    """It may have been somebody else, working there at the same time."""
    steps = [play.call("bash", command="echo mine > src/b.py")]
    done = batch(steps, "src/a.py", *PROMPT, *JSON, *ANY)
    (kept,) = home.glob("data/batches/*/strays/1/src/b.py")
    assert kept.read_text() == "mine\n"
    assert str(kept.parent.parent) in done.result["items"][0]["reason"]
    assert not list(home.glob("data/batches/*/before*")), "the copies are left"


def test_files_that_git_ignores_may_be_written(
    batch: Batch, play: SimpleNamespace, tree: Path
) -> None:
    (tree / ".gitignore").write_text("build/\n")
    steps = [play.call("bash", command="mkdir build; echo x > build/out"), play.say("Done.")]
    assert batch(steps, "src/a.py", *PROMPT, *ANY).code == 0
    assert (tree / "build/out").exists()


def test_files_of_the_scope_that_a_command_changes_are_the_items(
    batch: Batch, play: SimpleNamespace, tree: Path
) -> None:
    command = (
        "sed -i s/1/5/ src/b.py; mkdir -p docs/a; echo new > docs/b.md; sed -i s/1/6/ src/a.py"
    )
    steps = [play.call("bash", command=command), play.say("Done.")]
    arguments = ("--scope", "src/b.py", "--scope", "docs/**", *PROMPT, *ANY)
    done = batch(steps, "src/a.py", *arguments, "--dry-run")
    assert done.code == 0, done.err
    assert texts(tree) == AS_IT_WAS
    assert not (tree / "docs").exists()
    subprocess.run(["git", "apply", "--check"], input=done.out.encode(), cwd=tree, check=True)
    done = batch(steps, "src/a.py", *arguments, *JSON)
    assert done.code == 0, done.err
    assert texts(tree)[:2] == ["# a\nn = 6\n", "# b\nn = 5\n"]
    assert (tree / "docs/b.md").read_text() == "new\n"
    assert len(done.result["items"][0]["files"]) == 3


@pytest.mark.parametrize("command", ["rm src/a.py", "rm src/a.py; mkdir src/a.py"])
def test_an_item_removes_no_file(
    batch: Batch, play: SimpleNamespace, tree: Path, command: str
) -> None:
    done = batch([play.call("bash", command=command)], "src/a.py", *PROMPT, *JSON, *ANY)
    assert done.code == 5
    assert "src/a.py" in done.result["items"][0]["reason"]
    assert texts(tree) == AS_IT_WAS


def test_no_command_goes_on_by_itself(batch: Batch, play: SimpleNamespace, tree: Path) -> None:
    steps = [
        play.call("bash", command="sleep 0; echo x > src/b.py", background=True),
        {**play.say("No."), "expect": "no command goes on by itself"},
    ]
    assert batch(steps, "src/a.py", *PROMPT, *ANY).code == 0
    assert texts(tree) == AS_IT_WAS


def test_of_two_at_a_time_only_the_one_that_went_too_far_fails(
    batch: Batch, play: SimpleNamespace, tree: Path
) -> None:
    fair = play.call("bash", command="sleep 0.4")
    steps = [fair, play.call("bash", command="echo x > other.txt"), play.say("Ok.")]
    done = batch(steps, "src/[ab].py", *PROMPT, *JSON, *ANY, "--jobs", "2")
    assert done.code == 5, done.err
    (failed,) = [item for item in done.result["items"] if item["state"] == "failed"]
    assert "wrote other.txt" in failed["reason"]
    assert not (tree / "other.txt").exists()
    assert texts(tree) == AS_IT_WAS


def test_our_own_output_may_go_into_a_file_there(
    start: Callable[..., Any], play: SimpleNamespace, tree: Path
) -> None:
    slow = play.call("bash", command="echo told; sleep 0.3; echo told")
    steps = [slow, slow, play.say("Ok."), play.say("Ok.")]
    with (tree / "log.jsonl").open("wb") as log:
        arguments = ("src/[ab].py", *PROMPT, *ANY, "--jobs", "2", "--output-format", "stream-json")
        process = start(steps, *arguments, stdout=log)
        assert process.wait() == 0
    lines = (tree / "log.jsonl").read_text().splitlines()
    assert '"type": "result"' in lines[-1]


def test_a_command_that_is_stopped_writes_nothing_any_more(
    start: Callable[..., Any], wait_for: Callable[..., None], play: SimpleNamespace, tree: Path
) -> None:
    command = f"trap '' TERM; touch {tree.parent}/on; sleep 0.2; echo late > src/b.py; sleep 60"
    steps = [play.call("bash", command=command)]
    process = start(steps, "src/a.py", *PROMPT, *ANY)
    wait_for((tree.parent / "on").exists, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert texts(tree) == AS_IT_WAS


def test_what_a_command_did_that_was_killed_is_named(
    start: Callable[..., Any],
    wait_for: Callable[..., None],
    batch: Batch,
    play: SimpleNamespace,
    tree: Path,
    home: Path,
) -> None:
    command = "echo x > src/b.py; echo y >> src/a.py; touch done; sleep 60"
    process = start([play.call("bash", command=command)], "src/a.py", *PROMPT, *ANY)
    wait_for((tree / "done").exists, process)
    process.kill()
    process.wait()
    (folder,) = home.glob("data/batches/*")
    saved = read_ledger(folder)
    assert saved is not None
    assert saved.entry(1).since > 0
    done = batch([play.say("Ok.")], "--resume")
    assert "a command of src/a.py was killed" in done.err
    assert "src/b.py" in done.err
    assert "src/a.py," not in done.err.partition("left as it is")[2]
