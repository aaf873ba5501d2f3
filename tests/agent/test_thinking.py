"""How much a session thinks is what its model was trained with, and what its prompt says of it."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.cli import main
from ds4_agent.agent.config import Settings
from ds4_agent.agent.loop import Agent
from ds4_agent.agent.prompt.facts import Facts, gather_facts
from ds4_agent.agent.prompt.memory import Memory
from ds4_agent.agent.session_prompt import session_prefix, session_thinking, thinking_notices
from ds4_agent.engine.api import Engine
from ds4_agent.engine.dsml.segments import spell
from ds4_agent.engine.open import NANO, open_engine

RATIOS = [0, 0, 4, 128, 4]  # of nano's five layers


@pytest.fixture
def released(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """nano's weights under the config of a release."""
    engines: list[Engine] = []

    def opened(**keys: object) -> Engine:
        directory = tmp_path / f"model-{len(engines)}"
        shutil.copytree(NANO, directory)
        config = json.loads((directory / "config.json").read_text())
        config |= {"ds4_nano": False, **keys}
        (directory / "config.json").write_text(json.dumps(config))
        engines.append(open_engine(str(directory)))
        return engines[-1]

    yield opened
    for engine in engines:
        engine.close()


def beginning(engine: Engine, think: str | None, facts: Facts) -> str:
    prefix = session_prefix("lean", Settings(think=think), engine, [], facts, Memory())
    return spell(prefix).removeprefix("<｜begin▁of▁sentence｜>")[:40]


def test_the_prompt_of_0731_states_high_and_max(
    released: Callable[..., Engine], facts: Facts
) -> None:
    engine = released(dspark_block_size=5)

    assert session_thinking(Settings(), engine) == "low"
    plain = beginning(engine, None, facts)
    assert plain == beginning(engine, "low", facts) == beginning(engine, "off", facts)
    assert beginning(engine, "high", facts).startswith("Reasoning Effort: Absolute maximum")
    assert beginning(engine, "max", facts).startswith("Reasoning Effort: Beyond maximum")


def test_the_prompt_of_the_preview_states_its_one_text_at_max(
    released: Callable[..., Engine], facts: Facts
) -> None:
    engine = released(compress_ratios=[*RATIOS, 0])

    assert session_thinking(Settings(), engine) == "high"
    assert beginning(engine, "high", facts) == beginning(engine, "off", facts)
    assert beginning(engine, "max", facts).startswith("Reasoning Effort: Absolute maximum")


def test_a_level_a_model_does_not_have_is_the_next_one_and_said(
    released: Callable[..., Engine],
) -> None:
    engine = released(compress_ratios=[*RATIOS, 0])
    settings = Settings(think="low")

    assert session_thinking(settings, engine) == "high"
    (notice,) = thinking_notices(settings, engine)
    assert notice.endswith("has thinking off, high, max and not low; it is high")
    assert thinking_notices(Settings(think="max"), engine) == []
    assert thinking_notices(Settings(), engine) == []


def test_the_bundled_model_is_not_made_to_think(make_agent: Callable[..., Agent]) -> None:
    agent = make_agent(think="high", max_tokens=8)
    events = list(agent.run("hello"))

    notices = [event.text for event in events if isinstance(event, ev.Notice)]
    assert "nano has thinking off and not high; it is off" in notices
    assert not any(isinstance(event, ev.ThinkingDelta) for event in events)


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return gather_facts(tmp_path, today=date(2026, 1, 2))


def test_model_info_tells_the_release_and_its_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = shutil.copytree(NANO, tmp_path / "any-name")
    config = json.loads((directory / "config.json").read_text())
    del config["ds4_nano"]
    config["compress_ratios"] = [*RATIOS, 0]
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text('{"temperature": 0.7, "top_p": 1.0}')

    assert main(["model", "info", str(directory), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["version"], info["thinking"]) == ("V4 Flash preview", ["off", "high", "max"])
    assert (info["default_thinking"], info["temperature"], info["top_p"]) == ("high", 0.7, 0.95)
    assert main(["model", "info", str(directory)]) == 0
    assert "thinking           off, high, max\n" in capsys.readouterr().out
