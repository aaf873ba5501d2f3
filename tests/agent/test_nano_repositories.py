"""The bundled model works in repositories that other people wrote: the sources of packages that are
installed here, cloned with their history of one commit. Nothing is scripted.
"""

import importlib.util
import json
import shutil
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
from ds4_agent.engine.api import Engine
from ds4_agent.engine.open import NANO, open_engine

pytestmark = [
    pytest.mark.nano,
    pytest.mark.skipif(
        not (NANO / "model.safetensors").is_file(), reason="the nano weights are not trained yet"
    ),
]
LIMITS = ("--max-turns", "8", "--time-limit", "120", "--output-format", "json")


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def package(tmp_path: Path) -> Callable[[str], Path]:
    """A repository with the sources of an installed package."""

    def clone(name: str) -> Path:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        root = tmp_path / f"{name}-clone"
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyc")
        shutil.copytree(Path(spec.origin).parent, root / name, ignore=ignored)
        git(root, "init", "-q", "-b", "main")
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", "as it was released")
        return root

    return clone


@pytest.fixture
def ask(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., dict[str, Any]]:
    """`ask(root, prompt, *options)`: the result object of a headless run that ended well."""

    def run(root: Path, prompt: str, *options: str) -> dict[str, Any]:
        capfdbinary.readouterr()
        code = main(["-C", str(root), "-p", prompt, *LIMITS, *options])
        out, err = capfdbinary.readouterr()
        assert code == 0, err.decode()
        result = json.loads(out)
        assert isinstance(result, dict)
        return result

    return run


Ask = Callable[..., dict[str, Any]]
Package = Callable[[str], Path]


def only_change(root: Path) -> str:
    """The one path that git sees changed, and how."""
    return git(root, "status", "--porcelain").strip()


@pytest.mark.parametrize(
    ("name", "path", "kind", "old", "new"),
    [
        ("prompt_toolkit", "prompt_toolkit/cache.py", "class", "SimpleCache", "SmallCache"),
        ("prompt_toolkit", "prompt_toolkit/utils.py", "function", "get_cwidth", "cell_width"),
        ("git", "git/db.py", "class", "GitCmdObjectDB", "CommandObjectDB"),
    ],
)
def test_a_rename_changes_the_word_and_nothing_else(
    ask: Ask, package: Package, name: str, path: str, kind: str, old: str, new: str
) -> None:
    root = package(name)
    before = (root / path).read_text()
    result = ask(root, f"rename the {kind} {old} to {new} in {path}")
    assert (root / path).read_text() == before.replace(old, new)
    assert only_change(root) == f"M {path}"
    assert new in result["result"]


def test_a_text_is_replaced_and_the_undo_command_takes_it_back(
    ask: Ask, package: Package, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    root = package("prompt_toolkit")
    file = root / "prompt_toolkit/log.py"
    before = file.read_text()
    ask(root, 'replace "Logging configuration." with "How it logs." in prompt_toolkit/log.py')
    assert file.read_text() == before.replace("Logging configuration.", "How it logs.")
    assert only_change(root) == "M prompt_toolkit/log.py"
    assert main(["-C", str(root), "--undo"]) == 0
    assert b"restored prompt_toolkit/log.py" in capfdbinary.readouterr().out
    assert only_change(root) == ""


def test_what_is_not_there_is_said_and_nothing_is_changed(ask: Ask, package: Package) -> None:
    root = package("prompt_toolkit")
    wish = 'replace "zorp_limit = 17" with "zorp_limit = 18" in prompt_toolkit/cache.py'
    assert "not found" in ask(root, wish)["result"]
    assert only_change(root) == ""


def test_a_file_is_created(ask: Ask, package: Package) -> None:
    root = package("prompt_toolkit")
    ask(root, 'create the file NOTES.md with the content "hello from nano"')
    assert (root / "NOTES.md").read_text().strip() == "hello from nano"
    assert only_change(root) == "?? NOTES.md"


def test_without_permission_nothing_is_changed(ask: Ask, package: Package) -> None:
    root = package("prompt_toolkit")
    wish = "rename the class SimpleCache to SmallCache in prompt_toolkit/cache.py"
    ask(root, wish, "--permission-mode", "ask")
    assert only_change(root) == ""


# Interrupted at any instant, the real model goes on


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    opened = open_engine("nano")
    yield opened
    opened.close()


@pytest.fixture
def nano(engine: Engine, repo: Path, home: Path) -> Iterator[Agent]:
    places = find_places({"DS4_HOME": str(home)})
    settings = Settings(model="nano", permission_mode="auto", max_turns=8)
    agent = build_agent(RunOptions(settings, repo, places, is_headless=True), engine=engine)
    yield agent
    agent.close()


INSTANTS: dict[str, Callable[[ev.Event], bool]] = {
    "before the prefill": lambda e: isinstance(e, ev.StepStarted),
    "in the prefill": lambda e: isinstance(e, ev.PrefillProgressed),
    "at the name of a call": lambda e: isinstance(e, ev.CallStarted),
    "in an argument": lambda e: isinstance(e, ev.CallArgument) and e.name == "old",
    "when the call is whole": lambda e: isinstance(e, ev.CallReady),
    "after the call": lambda e: isinstance(e, ev.CallFinished),
    "in the answer": lambda e: isinstance(e, ev.TextDelta),
}
WISH = 'replace "retries = 3" with "retries = 5" in src/client.py'
EOS, USER, ASSISTANT = "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"


@pytest.mark.parametrize("instant", INSTANTS)
def test_an_interrupted_model_reads_a_whole_conversation_and_goes_on(
    nano: Agent, play: SimpleNamespace, repo: Path, instant: str
) -> None:
    events = []
    for event in nano.run(WISH):
        events.append(event)
        if INSTANTS[instant](event):
            nano.interrupt()
    assert events[-1].reason == "interrupted", instant
    play.assert_well_formed(events)
    is_done = "retries = 5" in (repo / "src/client.py").read_text()

    events = list(nano.run("run the tests" if is_done else WISH))

    play.assert_well_formed(events)
    assert events[-1].reason == "end"
    if not is_done:  # it had nothing to tell of, so it works
        assert any(isinstance(e, ev.CallFinished) and e.ran for e in events)
    transcript = nano._transcript
    text = transcript.tokenizer.decode(transcript._context.tokens)
    assert text.count(USER) == text.count(ASSISTANT) == text.count(EOS)
    for turn in text.split(ASSISTANT)[1:]:
        assert USER not in turn.partition(EOS)[0]


def test_it_is_steered_and_compacted_on_request(
    nano: Agent, play: SimpleNamespace, repo: Path
) -> None:
    events = []
    for event in nano.run(WISH):
        events.append(event)
        if isinstance(event, ev.CallReady):
            nano.steer("then run the tests")
    assert [e.text for e in play.of_kind(events, ev.Steered)][:1] == ["then run the tests"]
    play.assert_well_formed(events)
    nano.withdraw()

    kinds = {type(event) for event in nano.compact()}

    assert kinds & {ev.Compacted, ev.Notice}
    nano.uncompact()
    assert list(nano.run("run the tests"))[-1].reason == "end"
