"""The parts under the loop, each with its one promise."""

import threading
import time
import unicodedata
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.loop import Agent
from ds4_agent.agent.prompt_input import read_stdin
from ds4_agent.agent.repeats import CIRCLE_LIMIT, Memory
from ds4_agent.agent.threads import streamed
from ds4_agent.agent.transcript import ids_with_kinds
from ds4_agent.engine.dsml.encode import tool_result_segments
from ds4_agent.engine.dsml.segments import control, data, template
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.open import NANO


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(NANO / "tokenizer.json")


# Kinds of ids


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_ids_with_kinds_are_the_ids_of_the_prompt(results: list[str]) -> None:
    tokenizer = Tokenizer.from_file(NANO / "tokenizer.json") if not KEPT else KEPT[0]
    KEPT[:] = [tokenizer]
    segments = tool_result_segments(results)
    pairs = ids_with_kinds(tokenizer, segments)
    assert [token_id for token_id, _ in pairs] == tokenizer.encode(segments)
    assert all((kind == "control") == (i in tokenizer.control_ids) for i, kind in pairs)


KEPT: list[Tokenizer] = []


def test_an_id_that_holds_any_data_is_data(tokenizer: Tokenizer) -> None:
    segments = [control("<｜User｜>"), template("<tool_result>"), data("é ok"), template("</t>")]
    pairs = ids_with_kinds(tokenizer, segments)
    held = b"".join(tokenizer.piece(i) for i, kind in pairs if kind == "data").decode()
    assert "é ok" in held
    assert pairs[0][1] == "control"
    assert pairs[1][1] == "template"


# Circles


def ask(memory: Memory, name: str, content: str, changed: bool = False, **arguments: Any) -> bool:
    """One call; returns whether it ran."""
    if memory.look_up(name, arguments) is not None:
        return False
    memory.store(name, arguments, content, False, changed=changed)
    return True


def test_the_same_question_is_remembered_until_something_changes() -> None:
    memory = Memory()
    assert ask(memory, "read", "x", path="a")
    assert not ask(memory, "read", "x", path="a")
    assert ask(memory, "read", "x", path="b")
    assert ask(memory, "edit", "done", changed=True, path="a")
    assert ask(memory, "read", "y", path="a")


def test_a_changing_call_does_not_make_itself_new() -> None:
    memory = Memory()
    assert ask(memory, "bash", "done", changed=True, command="make")
    assert not ask(memory, "bash", "done", changed=True, command="make")


def test_while_a_job_runs_nothing_is_answered_from_memory() -> None:
    memory = Memory()
    ask(memory, "bash", "1 %", command="cat log")
    assert memory.look_up("bash", {"command": "cat log"}, changes_alone=True) is None


def test_the_same_answer_too_often_is_a_circle() -> None:
    memory = Memory()
    told = [memory.store("edit", {}, "x", False, changed=True) for _ in range(CIRCLE_LIMIT)]
    assert told == [False] * (CIRCLE_LIMIT - 1) + [True]


def test_a_command_may_be_repeated_while_a_job_runs(
    make_agent: Callable[..., Agent], play: SimpleNamespace
) -> None:
    start = play.call("bash", command="sleep 20", background=True)
    look = play.call("bash", command="ls")
    agent = make_agent(start, look, look, look, look, play.say("ok"))
    events: list[Any] = list(agent.run("go"))
    assert events[-1].reason == "end"


# Threads


def test_what_the_work_emits_comes_before_its_result() -> None:
    def work(emit: Callable[[int], None]) -> str:
        for number in range(3):
            emit(number)
        return "done"

    def collect() -> Generator[int, None, None]:
        result.append((yield from streamed(work, threading.Event(), "test")))

    result: list[str] = []
    assert list(collect()) == [0, 1, 2]
    assert result == ["done"]


def test_an_error_of_the_work_is_raised_where_it_is_waited_for() -> None:
    def work(emit: Callable[[int], None]) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(streamed(work, threading.Event(), "test"))


def test_leaving_early_cancels_the_work_and_waits_for_it() -> None:
    cancel = threading.Event()
    ended = threading.Event()

    def work(emit: Callable[[int], None]) -> None:
        emit(1)
        cancel.wait(10)
        ended.set()

    source = streamed(work, cancel, "test")
    assert next(source) == 1
    source.close()
    assert cancel.is_set()
    assert ended.is_set()


# Text for people


@given(st.text())
def test_nothing_displayed_acts_on_a_terminal(text: str) -> None:
    shown = visible(text)
    acting = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not [c for c in shown if c not in "\n\t" and unicodedata.category(c) in acting]
    assert not set(shown) & set("\x1b\r\x07\x00\x9b\u202e\u200b\u2028")


def test_ordinary_text_is_shown_as_it_is() -> None:
    text = "Größe: 3 µm\n\tnaïve 中文 🙂\n"
    assert visible(text) == text
    assert one_line("a\n b\t c") == "a b c"
    assert len(one_line("x" * 1000, 80)) == 80


# Standard input


def test_a_pipe_that_stays_silent_is_not_waited_for_forever(tmp_path: Path) -> None:
    import os

    reader, writer = os.pipe()
    told: list[str] = []
    with os.fdopen(reader, "rb") as stdin, os.fdopen(writer, "wb"):
        began = time.monotonic()
        assert read_stdin(stdin, True, told.append, patience=0.05) == ""
        assert time.monotonic() - began < 5
    assert "going on without it" in told[0]


def test_an_empty_file_and_the_null_device_are_no_input(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path in (tmp_path / "empty", Path("/dev/null")):
        with path.open("rb") as stdin:
            assert read_stdin(stdin, True, pytest.fail) == ""
