"""Alternatives of one prompt, and questions in between: forks of which the conversation learns only
what the user wants it to."""

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.alternatives import Alternative, Wanted, keep, parse_try, try_out
from ds4_agent.agent.asides import ask_aside
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.loop import Agent

Make = Callable[..., Agent]
EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}


def tried(agent: Agent, wanted: Wanted) -> tuple[list[Any], list[Alternative]]:
    events, found = [], try_out(agent, wanted)
    while True:
        try:
            events.append(next(found))
        except StopIteration as end:
            return events, end.value


def in_step(agent: Agent) -> None:
    """Two forks play the script in turns: neither goes on before the other has its line."""
    engine: Any = agent._transcript._context._engine  # type: ignore[attr-defined]
    take, both = engine.next_step, threading.Barrier(2, timeout=20)

    def taken(newest: Any) -> Any:
        line = take(newest)
        if threading.current_thread().name.startswith("ds4-task"):
            both.wait()
        return line

    engine.next_step = taken


def worktrees(repo: Path) -> int:
    command = ["git", "-C", str(repo), "worktree", "list"]
    return len(subprocess.run(command, check=True, capture_output=True).stdout.splitlines())


@pytest.fixture
def two(make_agent: Make, play: SimpleNamespace) -> Agent:
    """An agent whose script plays a first turn, two alternatives, and another turn."""
    agent = make_agent(
        play.say("Hello."),
        play.call("edit", **EDIT),
        play.call("edit", **EDIT),
        play.say("Raised."),
        play.say("Raised."),
        play.say("I know.", expect="what now"),
    )
    in_step(agent)
    return agent


def test_alternatives_work_on_copies_and_the_kept_one_is_applied(two: Agent, repo: Path) -> None:
    list(two.run("hello"))
    length = two.context_tokens
    wanted = Wanted(2, "raise the retries", "make test")
    _, found = tried(two, wanted)
    assert [(a.answer, a.check, a.lines) for a in found] == [("Raised.", "exit code 0", (1, 1))] * 2
    assert "retries = 3" in (repo / "src/client.py").read_text()
    assert two.context_tokens == length
    assert worktrees(repo) == 1
    assert keep(two, wanted, found[1]) == "Applied; changed: src/client.py"
    assert "retries = 5" in (repo / "src/client.py").read_text()
    assert list(two.run("what now?"))[-1].text == "I know."
    told = two._transcript.tokenizer.decode(two._transcript._context.tokens)
    assert "The user kept one of them. It is applied; these files changed: src/client.py." in told
    assert two.undo().changed == ("src/client.py",)
    assert "retries = 3" in (repo / "src/client.py").read_text()


def test_each_is_shown_as_a_task_with_its_diff(two: Agent) -> None:
    list(two.run("hello"))
    events, _ = tried(two, Wanted(2, "raise the retries"))
    ready = [e for e in events if isinstance(e, ev.CallReady)]
    ended = [e for e in events if isinstance(e, ev.CallFinished)]
    assert {e.id for e in ready} == {e.id for e in ended} == {"call_01", "call_02"}
    assert all("+retries = 5" in e.diff for e in ended)


def test_of_what_was_not_kept_the_session_has_no_record(two: Agent, home: Path, repo: Path) -> None:
    list(two.run("hello"))
    directory = two._recorder._log.directory  # type: ignore[union-attr]
    before = (directory / "events.jsonl").read_text()
    tried(two, Wanted(2, "raise the retries"))
    assert (directory / "events.jsonl").read_text() == before


def test_a_file_changed_meanwhile_is_not_overwritten(two: Agent, repo: Path) -> None:
    list(two.run("hello"))
    wanted = Wanted(2, "raise the retries")
    _, found = tried(two, wanted)
    (repo / "src/client.py").write_text("mine\n")
    with pytest.raises(UsageError, match=r"src/client\.py was changed meanwhile; nothing"):
        keep(two, wanted, found[0])
    assert (repo / "src/client.py").read_text() == "mine\n"


def test_new_and_removed_files_are_taken_over(
    make_agent: Make, play: SimpleNamespace, repo: Path
) -> None:
    change = play.call("bash", command="rm Makefile; mkdir -p d; printf x > d/new.txt")
    agent = make_agent(change, change, play.say("a"), play.say("b"))
    in_step(agent)
    wanted = Wanted(2, "x")
    _, found = tried(agent, wanted)
    keep(agent, wanted, found[0])
    assert not (repo / "Makefile").exists()
    assert (repo / "d/new.txt").read_text() == "x"
    agent.undo()
    assert (repo / "Makefile").exists()
    assert not (repo / "d").exists()


def test_the_first_prompt_of_a_session_can_be_tried(
    make_agent: Make, play: SimpleNamespace
) -> None:
    agent = make_agent(play.say("a"), play.say("b"), play.say("c"))
    events, found = tried(agent, Wanted(2, "x"))
    own = [e for e in events if isinstance(e, ev.PrefillProgressed)]
    assert len(own) == 1, "the prompt is computed once"
    assert sorted(a.answer for a in found) == ["a", "b"]
    assert agent.context_tokens == 0
    assert list(agent.run("go"))[-1].text == "c"


def test_an_interrupt_ends_all_alternatives(
    make_agent: Make, play: SimpleNamespace, repo: Path
) -> None:
    agent = make_agent(*[play.call("bash", command="sleep 60")] * 3)
    found = try_out(agent, Wanted(3, "x"))
    alternatives: list[Alternative] = []
    while True:
        try:
            event = next(found)
        except StopIteration as end:
            alternatives = end.value
            break
        if isinstance(event, ev.TaskEvent) and isinstance(event.event, ev.CallReady):
            agent.interrupt()
    assert [a.patch for a in alternatives] == [None] * 3
    assert worktrees(repo) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("ds4-task")]


def test_outside_a_repository_each_says_why(
    make_agent: Make, play: SimpleNamespace, repo: Path
) -> None:
    subprocess.run(["rm", "-rf", str(repo / ".git")], check=True)
    _, found = tried(make_agent(play.say("never")), Wanted(2, "x"))
    assert [a.answer for a in found] == ["Error: no git repository here"] * 2


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3 fix it", Wanted(3, "fix it", "make test")),
        ("2 --verify 'make check' fix it", Wanted(2, "fix it", "make check")),
        ('2 --verify "a b" fix\nit', Wanted(2, "fix\nit", "a b")),
        ("2 --verify pytest fix", Wanted(2, "fix", "pytest")),
    ],
)
def test_how_try_is_written(text: str, wanted: Wanted) -> None:
    assert parse_try(text, "make test") == wanted


@pytest.mark.parametrize("text", ["", "fix it", "3", "1 fix", "9 fix", "99999 fix"])
def test_a_wrong_try_says_how_it_is_written(text: str) -> None:
    with pytest.raises(UsageError, match=r"write /try 3 PROMPT|/try takes 2 to 8"):
        parse_try(text)


# Questions in between


def test_a_question_in_between_leaves_no_trace(
    make_agent: Make, play: SimpleNamespace, home: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    agent = make_agent(
        play.call("read", path="src/client.py"),
        play.say("It retries 3 times."),
        play.say("Because.", expect="(?s)^why 3.*call no tool"),
        play.say("ok", expect="^go on$"),
        trace_tokens=trace,
    )
    list(agent.run("look"))
    directory = agent._recorder._log.directory  # type: ignore[union-attr]
    before = [path.read_bytes() for path in (directory / "events.jsonl", trace)]
    length = agent.context_tokens
    events = list(ask_aside(agent, "why 3?"))
    assert "".join(e.text for e in events if isinstance(e, ev.TextDelta)) == "Because."
    assert events[-1].context_tokens == agent.context_tokens == length
    agent.save()
    assert [path.read_bytes() for path in (directory / "events.jsonl", trace)] == before
    assert list(agent.run("go on"))[-1].text == "ok"
    ids = [json.loads(line)["id"] for line in trace.read_text().splitlines()]
    assert len(ids) <= agent.context_tokens


def test_a_question_after_an_interrupt_reads_the_owed_results(
    make_agent: Make, play: SimpleNamespace
) -> None:
    agent = make_agent(
        play.call("bash", command="sleep 60"), play.say("Slept.", expect="interrupted")
    )
    for event in agent.run("sleep"):
        if isinstance(event, ev.CallReady):
            agent.interrupt()
    events = list(ask_aside(agent, "what happened?"))
    assert [e.text for e in events if isinstance(e, ev.TextDelta)] != []


def test_a_question_in_between_that_needs_a_tool_says_so(
    make_agent: Callable[..., Agent], play: SimpleNamespace
) -> None:
    agent = make_agent(play.say("Hello."), play.call("read", path="src/client.py"))
    list(agent.run("hello"))
    said = [e.text for e in ask_aside(agent, "how many retries?") if isinstance(e, ev.Notice)]
    assert said == [
        "the model gave no answer but wanted to call read; a question in between calls no tool, "
        "so ask it as a prompt"
    ]


def test_before_the_first_prompt_there_is_nothing_to_ask_about(
    make_agent: Make, play: SimpleNamespace
) -> None:
    with pytest.raises(UsageError, match="no conversation yet"):
        list(ask_aside(make_agent(play.say("x")), "why?"))
