"""Forks of the bundled model, in process: several at work in one real repository."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.answers import Answers, answer_all
from ds4_agent.agent.loop import Agent
from ds4_agent.engine.open import NANO
from ds4_agent.tools.registry import task_tool

pytestmark = [
    pytest.mark.nano,
    pytest.mark.skipif(
        not (NANO / "model.safetensors").is_file(), reason="the nano weights are not trained yet"
    ),
]
FILES = ("north", "east", "south", "west")


def test_a_small_swarm_changes_a_file_each(make_agent: Callable[..., Agent], repo: Path) -> None:
    for name in FILES:
        (repo / f"src/{name}.py").write_text(f"zorp_limit = '{name}'\n")
    agent = make_agent(keeps_log=True)
    list(agent.run("list the files"))
    length, runner = agent.context_tokens, agent.runner
    runner.use_tools((*runner.tools, task_tool()))  # the model itself is not offered it
    prompts = [f'replace "zorp_limit" with "glim_limit" in src/{name}.py' for name in FILES]
    calls = [
        ev.CallReady(f"call_{90 + number}", "task", {"prompt": prompt})
        for number, prompt in enumerate(prompts)
    ]
    answers = Answers(calls)
    live = agent.forked()
    runner.begin_step(replace(live, answers=answers))
    events: list[Any] = list(answer_all(runner, answers, runner.cancel))
    for name in FILES:
        assert (repo / f"src/{name}.py").read_text() == f"glim_limit = '{name}'\n"
    assert all("+glim_limit" in result for result in answers.results)
    assert agent.context_tokens == length
    began = [e.event for e in events if isinstance(e, ev.TaskEvent)]
    fed = [e for e in began if isinstance(e, ev.PrefillProgressed)]
    assert all(e.reused >= length - 40 for e in fed), (
        "nothing of the conversation is computed again"
    )
    assert max(e.total for e in fed) < 600
