"""Sub-agents in git worktrees of their own: copies of the repository as it is now, whose diff comes
back and which are always removed. A scripted model, real git."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.loop import Agent

Make = Callable[..., Agent]
EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}


def run(agent: Agent, prompt: str = "go") -> list[Any]:
    return list(agent.run(prompt))


def finished(events: list[Any]) -> list[ev.CallFinished]:
    return [event for event in events if isinstance(event, ev.CallFinished)]


@pytest.fixture
def make(make_agent: Make) -> Make:
    """An agent whose profile has `task`."""

    def lean(*steps: dict[str, Any], **chosen: Any) -> Agent:
        return make_agent(*steps, **{"prompt_profile": "lean", **chosen})

    return lean


def dirty(repo: Path) -> None:
    (repo / "src/client.py").write_text("import os\n\nretries = 3  # mine\n")
    (repo / "untracked.txt").write_text("seen\n")
    (repo / "Makefile").unlink()


def test_an_isolated_sub_agent_works_on_a_copy_and_its_diff_comes_back(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    dirty(repo)
    before = status(repo)
    agent = make(
        play.call("task", prompt="raise", isolate="worktree"),
        play.calls(("read", {"path": "untracked.txt"}), ("list", {"path": "."}), ("edit", EDIT)),
        play.call("bash", command="echo more >> untracked.txt; git status --short"),
        play.say("Raised.", expect="untracked.txt"),
        play.say("ok", expect=r"(?s)^Raised\..*not applied.*\+retries = 5  # mine"),
    )
    events = run(agent)
    (task,) = finished(events)
    assert "+more" in task.diff
    assert "Makefile" not in task.diff
    assert status(repo) == before
    assert "retries = 3" in (repo / "src/client.py").read_text()
    assert git(repo, "worktree", "list").count("\n") == 1
    patch = task.content.split("git apply ")[1].split(" ")[0]
    git(repo, "apply", patch)
    assert (repo / "src/client.py").read_text() == "import os\n\nretries = 5  # mine\n"
    agent.close()
    assert not Path(patch).exists()


def test_a_worktree_is_removed_also_after_an_interrupt(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    agent = make(
        play.call("task", prompt="sleep", isolate="worktree"),
        play.call("bash", command="touch here; sleep 60"),
        play.say("never"),
    )
    events = []
    for event in agent.run("go"):
        events.append(event)
        if isinstance(event, ev.TaskEvent) and isinstance(event.event, ev.CallReady):
            agent.interrupt()
    assert events[-1].reason == "interrupted"
    assert "it was interrupted" in finished(events)[0].content
    assert git(repo, "worktree", "list").count("\n") == 1


def test_what_a_killed_agent_left_is_removed_with_the_next_worktree(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    place = Path(tempfile.mkdtemp(prefix=f"ds4-task-{ended.pid}-"))
    git(repo, "worktree", "add", "--detach", str(place / "repo"))
    mine = Path(tempfile.mkdtemp(prefix="mine-"))
    git(repo, "worktree", "add", "--detach", str(mine / "repo"))
    run(make(play.call("task", prompt="x", isolate="worktree"), play.say("a"), play.say("ok")))
    assert not place.exists()
    assert git(repo, "worktree", "list").count("\n") == 2
    git(repo, "worktree", "remove", str(mine / "repo"))
    mine.rmdir()


def test_where_there_is_no_repository_a_worktree_is_refused(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    subprocess.run(["rm", "-rf", str(repo / ".git")], check=True)
    steps = [
        play.call("task", prompt="x", isolate="worktree"),
        play.say("ok", expect="^Error: no git repository here$"),
    ]
    assert run(make(*steps))[-1].text == "ok"


def test_a_repository_without_a_commit_is_refused(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    subprocess.run(["rm", "-rf", str(repo / ".git")], check=True)
    git(repo, "init", "-q")
    steps = [
        play.call("task", prompt="x", isolate="worktree"),
        play.say("ok", expect="^Error: a worktree needs a commit to begin from"),
    ]
    assert run(make(*steps))[-1].text == "ok"


def status(repo: Path) -> str:
    return git(repo, "status", "--porcelain")


def git(repo: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repo), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
