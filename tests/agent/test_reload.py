"""Plugins that change while a session runs: seen at the next turn, the prefix untouched."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.loop import Agent
from ds4_agent.agent.places import find_places

TOOL = """\
from ds4_agent import tool
@tool(effect="read")
def {name}({parameter}: str) -> str:
    '''Repeat a word.'''
    return "{answer}"
"""


@pytest.fixture
def write(home: Path) -> Callable[..., Path]:
    def make(
        name: str = "echo", parameter: str = "word", answer: str = "<1>", text: str = TOOL
    ) -> Path:
        directory = find_places({"DS4_HOME": str(home)}).tools
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.py"
        path.write_text(text.format(name=name, parameter=parameter, answer=answer))
        return path

    return make


def told(agent: Agent, prompt: str) -> list[str]:
    """Run a prompt to its end; the notices."""
    events = list(agent.run(prompt))
    assert isinstance(events[-1], ev.TurnEnded)
    assert events[-1].reason == "end"
    return [event.text for event in events if isinstance(event, ev.Notice)]


NEW = r"(?s)^From now on these tools.*echo.*\n\ngo$"


def test_a_plugin_that_appears_can_be_called_from_the_next_turn(
    make_agent: Callable[..., Agent], play: SimpleNamespace, write: Any
) -> None:
    steps = [
        play.say("one", expect="^first$"),
        play.call("echo", word="a") | {"expect": NEW},
        play.say("two", expect="^<1>$"),
        play.say("three", expect="^last$"),
    ]
    agent = make_agent(*steps)
    assert told(agent, "first") == []
    write()
    assert told(agent, "go") == ["tools loaded: echo"]
    assert told(agent, "last") == []
    assert "echo" in agent.identity.tools


def test_only_the_end_of_the_transcript_grows(
    make_agent: Callable[..., Agent], play: SimpleNamespace, write: Any, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    agent = make_agent(play.say("one"), play.say("two"), trace_tokens=trace)
    told(agent, "first")
    agent.save()
    before = trace.read_text()
    write()
    told(agent, "second")
    agent.save()
    after = trace.read_text()
    assert after.startswith(before)
    assert "latest_reminder" not in after[len(before) :]


def test_a_change_of_the_body_alone_is_not_told_to_the_model(
    make_agent: Callable[..., Agent], play: SimpleNamespace, write: Any
) -> None:
    write()
    steps = [
        play.say("one"),
        play.call("echo", word="a") | {"expect": "^go$"},
        play.say("two", expect="^<second>$"),
    ]
    agent = make_agent(*steps)
    told(agent, "first")
    write(answer="<second>")
    assert told(agent, "go") == ["tools loaded: echo"]


def test_a_changed_parameter_is_told_and_binding(
    make_agent: Callable[..., Agent], play: SimpleNamespace, write: Any
) -> None:
    write()
    steps = [
        play.say("one"),
        play.call("echo", phrase="a") | {"expect": "echo.*phrase"},
        play.say("two", expect="^<1>$"),
    ]
    agent = make_agent(*steps, prompt_profile="lean")
    told(agent, "first")
    write(parameter="phrase")
    told(agent, "go")


def test_a_plugin_that_breaks_stays_as_it_was(
    make_agent: Callable[..., Agent], play: SimpleNamespace, write: Any
) -> None:
    path = write()
    steps = [
        play.say("one"),
        play.call("echo", word="a") | {"expect": "^go$"},
        play.say("two", expect="^<1>$"),
    ]
    agent = make_agent(*steps)
    told(agent, "first")
    path.write_text("def half(")
    (notice,) = told(agent, "go")
    assert f"{path}: it cannot be loaded, SyntaxError" in notice


def test_a_plugin_that_is_removed_is_gone(
    make_agent: Callable[..., Agent], play: SimpleNamespace, write: Any
) -> None:
    path = write()
    steps = [
        play.say("one"),
        play.call("echo", word="a") | {"expect": "(?s)^These tools are gone: echo\n\ngo$"},
        play.say("two", expect="there is no tool echo"),
    ]
    agent = make_agent(*steps, uses_grammar=False)
    told(agent, "first")
    path.unlink()
    assert told(agent, "go")[0] == "tools gone: echo"


def test_what_the_model_could_write_itself_is_not_loaded_on_the_way(
    make_agent: Callable[..., Agent], play: SimpleNamespace, write: Any, home: Path, repo: Path
) -> None:
    inside = [play.say("one"), play.say("two", expect="^go$")]
    agent = make_agent(*inside, add_dirs=(home,))
    told(agent, "first")
    write()
    assert told(agent, "go") == []
    (repo / ".ds4/tools").mkdir(parents=True)
    (repo / ".ds4/tools/own.py").write_text("raise SystemExit")
    agent = make_agent(play.say("one"), play.say("two"), permission_mode="auto")
    assert "not trusted" in told(agent, "go")[0]
    (repo / ".ds4/tools/other.py").write_text("raise SystemExit")
    assert told(agent, "go") == []
