"""A real repository, a scripted model, and the agent between them."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.build import RunOptions, build_agent
from ds4_agent.agent.cli import main
from ds4_agent.agent.config import Settings
from ds4_agent.agent.loop import Agent
from ds4_agent.agent.places import find_places
from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.segments import spell


def calls(*pairs: tuple[str, dict[str, Any]], text: str = "") -> dict[str, Any]:
    """A scripted step that makes these calls."""
    block = call_segments([ParsedCall(name, arguments) for name, arguments in pairs])
    return {"text": text + spell(block)}


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    """A scripted step that makes one call."""
    return calls((name, arguments))


def say(text: str, **extra: Any) -> dict[str, Any]:
    return {"text": text, **extra}


@pytest.fixture
def play() -> SimpleNamespace:
    """The vocabulary of a script and of what comes out. (Test files cannot import this one.)"""
    return SimpleNamespace(
        call=call,
        calls=calls,
        say=say,
        of_kind=of_kind,
        replayed=replayed,
        assert_well_formed=assert_well_formed,
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's own configuration, and no session of ours among theirs."""
    place = tmp_path / "home"
    monkeypatch.setenv("DS4_HOME", str(place))
    monkeypatch.delenv("DS4_MODEL", raising=False)
    return place


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    (root / "src").mkdir(parents=True)
    (root / "src/client.py").write_text("import os\n\nretries = 3\n")
    (root / "Makefile").write_text("test:\n\t@echo 3 passed\n")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    return root


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Write a script; returns what `--model` takes."""

    def write(*steps: dict[str, Any]) -> str:
        path = tmp_path / "script.jsonl"
        path.write_text("".join(json.dumps(step) + "\n" for step in steps))
        return f"scripted:{path}"

    return write


@pytest.fixture
def make_agent(
    repo: Path, home: Path, script: Callable[..., str]
) -> Iterator[Callable[..., Agent]]:
    """`make_agent(*steps, setting=…, approver=…)`: an agent in `repo` over a script."""
    made: list[Agent] = []

    def make(*steps: dict[str, Any], approver: Any = None, **chosen: Any) -> Agent:
        own = {name: chosen.pop(name) for name in list(chosen) if name in RUN_OPTIONS}
        chosen = {"permission_mode": "auto", "model": script(*steps) if steps else None, **chosen}
        settings = Settings(**chosen)
        places = find_places({"DS4_HOME": str(home)})
        options = RunOptions(settings, repo, places, is_headless=True, **own)
        made.append(build_agent(options, approver=approver))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


RUN_OPTIONS = {
    "yolo", "keeps_log", "approvals_log", "trace_tokens", "add_dirs", "uses_grammar", "resumes",
}  # fmt: skip


@pytest.fixture
def ds4(
    repo: Path, script: Callable[..., str], capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., SimpleNamespace]:
    """`ds4(steps, *arguments)`: `ds4-agent -C repo --model script …` in this process."""

    def run(steps: list[dict[str, Any]], *arguments: str) -> SimpleNamespace:
        capfdbinary.readouterr()
        code = main(["-C", str(repo), "--model", script(*steps), *arguments])
        out, err = capfdbinary.readouterr()
        return SimpleNamespace(code=code, out=out.decode(), err=err.decode())

    return run


def replayed(agent: Agent) -> list[ev.Event]:
    """Everything a screen is told of the session that goes on."""
    story, now = agent.replay()
    return [*story.events(), *now]


def of_kind(events: list[ev.Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def assert_well_formed(events: list[ev.Event]) -> None:
    """The lifecycles of `events.py`: nested, each opened and closed exactly once."""
    assert isinstance(events[0], ev.RunStarted)
    assert isinstance(events[-1], ev.TurnEnded)
    assert len(of_kind(events, ev.RunStarted)) == len(of_kind(events, ev.TurnEnded)) == 1
    in_step = False
    open_calls: set[str] = set()
    asked: set[str] = set()
    for event in events:
        match event:
            case ev.StepStarted():
                assert not in_step
                assert not open_calls, "a step begins with calls unanswered"
                in_step = True
            case ev.StepFinished():
                assert in_step
                in_step = False
            case ev.CallStarted(call_id, _):
                assert in_step
                assert call_id not in open_calls
                open_calls.add(call_id)
            case ev.CallReady(call_id, _, _) | ev.CallArgument(call_id, _, _):
                assert in_step
                assert call_id in open_calls
            case ev.ApprovalAsked(request):
                asked.add(request.call_id)
            case ev.ApprovalDecided(request, _, _):
                asked.discard(request.call_id)
            case ev.CallFinished(call_id, _, _):
                assert not in_step
                open_calls.remove(call_id)
            case ev.TextDelta() | ev.ThinkingDelta():
                assert in_step
            case _:
                pass
    assert not in_step
    assert not open_calls
    assert not asked
