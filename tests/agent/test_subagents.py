"""Sub-agents: forks of the conversation that work beside it, over a scripted model, real files and
real git."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.loop import Agent
from ds4_agent.engine.errors import ScriptError
from ds4_agent.tools.registry import builtin_tools

Make = Callable[..., Agent]
EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}


def run(agent: Agent, prompt: str = "go") -> list[Any]:
    return list(agent.run(prompt))


def finished(events: list[Any]) -> list[ev.CallFinished]:
    return [event for event in events if isinstance(event, ev.CallFinished)]


def nested(events: list[Any], kind: type) -> list[Any]:
    return [e.event for e in events if isinstance(e, ev.TaskEvent) and isinstance(e.event, kind)]


@pytest.fixture
def make(make_agent: Make) -> Make:
    """An agent whose profile has `task`."""

    def lean(*steps: dict[str, Any], **chosen: Any) -> Agent:
        return make_agent(*steps, **{"prompt_profile": "lean", **chosen})

    return lean


def test_a_sub_agent_works_and_its_answer_and_diff_come_back(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    agent = make(
        play.call("task", prompt="raise the retries"),
        play.call("edit", **EDIT),
        play.say("Raised to 5."),
        play.say("Done.", expect=r"(?s)^Raised to 5\..*in the workspace:.*\+retries = 5"),
    )
    events = run(agent)
    play.assert_well_formed([e for e in events if not isinstance(e, ev.TaskEvent)])
    play.assert_well_formed([e.event for e in events if isinstance(e, ev.TaskEvent)])
    assert (repo / "src/client.py").read_text().endswith("retries = 5\n")
    assert (events[-1].text, events[-1].steps) == ("Done.", 2)
    (task,) = finished(events)
    assert "+retries = 5" in task.diff
    assert not task.is_error


def test_a_sub_agent_reads_that_it_is_one_and_then_its_task(
    make: Make, play: SimpleNamespace
) -> None:
    steps = [
        play.calls(("read", {"path": "src/client.py"}), ("task", {"prompt": "count the lines"})),
        play.say("3", expect=r"(?s)retries = 3.*sub-agent that this call started.*count the lines"),
        play.say("It has 3.", expect="^3$"),
    ]
    assert run(make(*steps))[-1].text == "It has 3."


def test_a_fork_begins_with_the_very_tokens_of_its_caller(
    make: Make, play: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make(play.call("task", prompt="x"), play.say("a"), play.say("b"))
    forks: list[Any] = []
    fork = type(agent._transcript).fork
    monkeypatch.setattr(
        type(agent._transcript), "fork", lambda own: forks.append(fork(own)) or forks[-1]
    )
    events = run(agent)
    ours, theirs = agent._transcript._context.tokens, forks[0]._context.tokens
    began = nested(events, ev.PrefillProgressed)[0]
    at = began.reused
    opened = at + 2  # the end of the model's turn, and the mark of the user's
    assert list(ours[:opened]) == list(theirs[:opened])
    assert began.done == began.total < at / 4


def test_sub_agents_of_one_step_work_at_the_same_time(make: Make, play: SimpleNamespace) -> None:
    """Each waits for the other: one after the other they would never end."""
    meet = threading.Barrier(2, timeout=20)

    class Both:
        def decide(self, request: ev.ApprovalRequest) -> ev.Decision:
            return ev.Decision("allow")

    agent = make(
        play.calls(("task", {"prompt": "one"}), ("task", {"prompt": "two"})),
        play.say("a"),
        play.say("b"),
        play.say("Both."),
        approver=Both(),
    )
    tasks = agent._runner.tasks
    assert tasks is not None
    count = tasks._count

    def met() -> None:
        count()
        meet.wait()

    tasks._count = met  # type: ignore[method-assign]
    events = run(agent)
    assert sorted(c.content for c in finished(events)) == ["a", "b"]
    assert events[-1].text == "Both."


def test_each_sub_agent_is_told_that_another_does_the_other_task(
    make: Make, play: SimpleNamespace
) -> None:
    other = "Another sub-agent does this"
    steps = [
        play.calls(("task", {"prompt": "one"}), ("task", {"prompt": "two"})),
        play.say("a", expect=other),
        play.say("b", expect=other),
        play.say("ok"),
    ]
    assert run(make(*steps))[-1].text == "ok"


def test_results_stand_in_the_order_of_the_calls(make: Make, play: SimpleNamespace) -> None:
    step = play.calls(
        ("task", {"prompt": "1"}), ("read", {"path": "none"}), ("task", {"prompt": "2"})
    )
    last = r"(?s)<tool_result>a</tool_result>.*none does not exist.*<tool_result>b</tool_result>"
    assert (
        run(make(step, play.say("a"), play.say("b"), play.say("ok", expect=last)))[-1].text == "ok"
    )


def test_the_calls_of_a_sub_agent_are_asked_about_by_name(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    asked: list[ev.ApprovalRequest] = []

    class Approver:
        def decide(self, request: ev.ApprovalRequest) -> ev.Decision:
            asked.append(request)
            return ev.Decision("deny", "not today")

    agent = make(
        play.call("task", prompt="raise the retries"),
        play.call("edit", **EDIT),
        play.say("I was not allowed to.", expect="not today"),
        play.say("ok"),
        approver=Approver(),
        permission_mode="ask",
    )
    run(agent)
    (request,) = asked
    assert (request.task, request.tool) == ("call_01", "edit")
    assert request.reason == "sub-agent call_01 (raise the retries) changes files"
    assert "retries = 3" in (repo / "src/client.py").read_text()


def test_two_that_ask_are_asked_one_after_the_other(make: Make, play: SimpleNamespace) -> None:
    inside: list[int] = []
    most: list[int] = []

    class Approver:
        def decide(self, request: ev.ApprovalRequest) -> ev.Decision:
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.05)
            inside.pop()
            return ev.Decision("allow")

    write = {"path": "a.txt", "content": "x\n"}
    agent = make(
        play.calls(("task", {"prompt": "1"}), ("task", {"prompt": "2"})),
        play.call("write", **write),
        play.call("write", **write),
        play.say("a"),
        play.say("b"),
        play.say("ok"),
        approver=Approver(),
        permission_mode="ask",
    )
    run(agent)
    assert most == [1, 1]


def test_undo_takes_back_what_sub_agents_changed(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    agent = make(
        play.calls(("task", {"prompt": "1"}), ("edit", EDIT)),
        play.call("write", path="new.txt", content="x\n"),
        play.say("written"),
        play.say("ok"),
    )
    run(agent)
    assert (repo / "new.txt").exists()
    assert set(agent.undo().changed) == {"new.txt", "src/client.py"}
    assert not (repo / "new.txt").exists()


def test_a_file_that_a_sub_agent_changed_is_new_to_its_caller(
    make: Make, play: SimpleNamespace
) -> None:
    read = play.call("read", path="src/client.py")
    steps = [
        read,
        play.call("task", prompt="raise the retries"),
        play.call("edit", **EDIT),
        play.say("Raised."),
        play.call("read", path="src/client.py"),
        play.say("ok", expect="retries = 5"),
    ]
    assert run(make(*steps))[-1].text == "ok"


# Limits


def test_an_interrupt_ends_all(make: Make, play: SimpleNamespace) -> None:
    agent = make(
        play.calls(*[("task", {"prompt": str(n)}) for n in range(12)]),
        *[play.call("bash", command="sleep 60")] * 8,
        play.say("never"),
    )
    events, ready = [], 0
    for event in agent.run("go"):
        events.append(event)
        ready += isinstance(event, ev.TaskEvent) and isinstance(event.event, ev.CallReady)
        if ready == 8:
            agent.interrupt()
    assert events[-1].reason == "interrupted"
    assert len(finished(events)) == 12
    assert all(call.is_error for call in finished(events))
    assert not [t for t in threading.enumerate() if t.name.startswith("ds4-task")]


def test_a_sub_agent_starts_no_other(make: Make, play: SimpleNamespace) -> None:
    steps = [
        play.call("task", prompt="x"),
        play.call("task", prompt="y"),
        play.say("I cannot.", expect="task"),
        play.say("ok"),
    ]
    events = run(make(*steps))
    assert events[-1].text == "ok"
    assert "task" in nested(events, ev.Notice)[0].text


def test_a_sub_agent_has_the_tools_it_was_given(
    make: Make, play: SimpleNamespace, repo: Path
) -> None:
    steps = [
        play.call("task", prompt="x", tools=["read", "search"]),
        play.call("edit", **EDIT),
        play.say("I have no edit.", expect="edit"),
        play.say("ok"),
    ]
    events = run(make(*steps))
    assert nested(events, ev.RunStarted)[0].tools == ("read", "search")
    assert "retries = 3" in (repo / "src/client.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "x", "tools": ["rm"]}, "there is no tool rm; the tools are read, write"),
        ({"prompt": "x", "tools": ["task"]}, "a sub-agent starts no sub-agents; leave task out"),
        ({"prompt": "x", "isolate": "docker"}, "isolate must be one of worktree, not docker"),
    ],
)
def test_a_wrong_call_is_answered_in_one_line(
    make: Make, play: SimpleNamespace, arguments: dict[str, Any], problem: str
) -> None:
    events = run(make(play.call("task", **arguments), play.say("ok"), uses_grammar=False))
    assert finished(events)[0].content.startswith(f"Error: {problem}")


def test_only_so_many_are_started_in_a_turn(
    make: Make, play: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds4_agent.agent.subagents.MOST", 2)
    step = play.calls(*[("task", {"prompt": str(n)}) for n in range(3)])
    events = run(make(step, play.say("a"), play.say("b"), play.say("ok")))
    refused = [call for call in finished(events) if call.is_error]
    assert [call.content for call in refused] == [
        "Error: 2 sub-agents were started in this turn, which is the most"
    ]


def test_a_sub_agent_that_does_not_end_is_stopped_and_says_so(
    make: Make, play: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds4_agent.agent.subagents.STEPS", 2)
    steps = [
        play.call("task", prompt="x"),
        play.call("read", path="Makefile"),
        play.call("read", path="src/client.py"),
        play.say("ok", expect="^Error: the sub-agent did not finish: it used up the steps"),
    ]
    assert run(make(*steps))[-1].text == "ok"


def test_tokens_of_sub_agents_are_the_sessions_tokens(make: Make, play: SimpleNamespace) -> None:
    agent = make(play.call("task", prompt="x"), play.say("one two three"), play.say("ok"))
    events = run(agent)
    (theirs,) = nested(events, ev.TurnEnded)
    own = [e.usage for e in events if isinstance(e, ev.StepFinished)]
    assert events[-1].usage == sum(own, start=theirs.usage)
    assert theirs.usage.output_tokens > 0


def test_what_is_left_of_max_tokens_is_shared_out(make: Make, play: SimpleNamespace) -> None:
    step = play.calls(("task", {"prompt": "1"}), ("task", {"prompt": "2"}))
    agent = make(
        step, play.say("w " * 400), play.say("w " * 400), play.say("w " * 9), max_tokens=300
    )
    events = run(agent)
    ended = nested(events, ev.TurnEnded)
    assert [e.reason for e in ended] == ["max_tokens", "max_tokens"]
    assert ended[0].usage.output_tokens == ended[1].usage.output_tokens
    assert events[-1].usage.output_tokens <= 300


def test_an_engine_that_fails_ends_the_run(make: Make, play: SimpleNamespace) -> None:
    agent = make(play.calls(("task", {"prompt": "1"}), ("task", {"prompt": "2"})), play.say("a"))
    with pytest.raises(ScriptError, match="all 2 steps are used up"):
        run(agent)


# Who is offered it


def test_nano_is_not_offered_sub_agents(make_agent: Make, play: SimpleNamespace) -> None:
    agent = make_agent(play.say("ok"), prompt_profile="nano")
    events = run(agent)
    assert events[0].tools == tuple(tool.name for tool in builtin_tools())
    text = agent._transcript.tokenizer.decode(agent._transcript._context.tokens)
    assert text.split("<｜latest_reminder｜>")[0].endswith("\n" + builtin_tools()[-1].signature())
    lean = run(make_agent(play.say("ok"), prompt_profile="lean"))
    assert lean[0].tools[-2:] == ("git", "task")


def test_the_lean_prompt_describes_it(make: Make, play: SimpleNamespace) -> None:
    agent = make(play.say("ok"))
    run(agent)
    text = agent._transcript.tokenizer.decode(agent._transcript._context.tokens)
    assert '"name": "task"' in text


# What is shown and kept


def test_stream_json_names_the_call_a_line_belongs_to(
    ds4: Callable[..., SimpleNamespace], play: SimpleNamespace
) -> None:
    steps = [
        play.call("task", prompt="raise"),
        play.call("edit", **EDIT),
        play.say("Raised."),
        play.say("ok"),
    ]
    lean = ("--prompt-profile", "lean", "--permission-mode", "auto")
    done = ds4(steps, "-p", "go", *lean, "--output-format", "stream-json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    of_task = [line for line in lines if line.get("parent_tool_use_id") == "call_01"]
    texts = [line["message"]["content"][0].get("text") for line in of_task if "message" in line]
    assert "Raised." in texts
    assert [line["type"] for line in lines if line["type"] in ("system", "result")] == [
        "system",
        "result",
    ]
    assert lines[-1]["result"] == "ok"


def test_the_session_goes_on_as_if_sub_agents_had_said_nothing(
    make: Make, play: SimpleNamespace
) -> None:
    from ds4_agent.agent.choose import Choice

    agent = make(play.call("task", prompt="x"), play.say("hidden"), play.say("ok"))
    run(agent)
    length = agent.context_tokens
    directory = agent._recorder._log.directory  # type: ignore[union-attr]
    agent.close()
    again = make(play.say("on"), resumes=Choice(directory))
    texts = [e.text for e in again.replay()[0].events() if isinstance(e, ev.TextDelta)]
    assert texts == ["ok"]
    assert again.context_tokens == length


def test_a_swarm_of_100_over_100_files(make: Make, play: SimpleNamespace, repo: Path) -> None:
    """Whoever plays which line of the script: each sub-agent ends with an answer, so all are."""
    files = [repo / f"f{number}.txt" for number in range(100)]
    for file in files:
        file.write_text("old\n")
    steps = [play.calls(*[("task", {"prompt": f"change {file.name}"}) for file in files])]
    for file in files:
        steps += [play.call("write", path=file.name, content="new\n"), play.say("changed")]
    agent = make(*steps, play.say("all"))
    events = run(agent)
    assert events[-1].text == "all"
    assert [file.read_text() for file in files] == ["new\n"] * 100
    assert len(finished(events)) == 100
    assert len(agent.undo().changed) == 100
    assert [file.read_text() for file in files] == ["old\n"] * 100
