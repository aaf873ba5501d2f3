"""Forks on the screens: sub-agents, questions in between, alternatives to choose from."""

import threading
from pathlib import Path

from ds4_agent.agent import events as ev
from ds4_agent.tui.describe import task_line
from ds4_agent.tui.picker import Picker
from ds4_agent.tui.plain_view import PlainView

EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}


def in_step(agent):
    """Two forks play the script in turns: neither goes on before the other has its line."""
    engine = agent._transcript._context._engine
    take, both = engine.next_step, threading.Barrier(2, timeout=20)

    def taken(newest):
        line = take(newest)
        both.wait()
        return line

    engine.next_step = taken


def test_what_a_sub_agent_does_stands_in_its_call(perform, stage, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.until(pilot, lambda: "sleep 2" in stage.text(app))
        assert "task: raise the retries" in stage.text(app)
        await stage.until(pilot, lambda: "All done." in stage.answers(app))
        await stage.idle(pilot)
        seen = stage.text(app)
        assert "Raised." in seen
        assert "3 + retries = 5" in seen
        assert "Raised." not in stage.answers(app)

    perform(
        story,
        stage.call("task", prompt="raise the retries"),
        stage.call("bash", command="sleep 2"),
        stage.call("edit", **EDIT),
        stage.say("Raised."),
        stage.say("All done."),
        prompt_profile="lean",
        permission_mode="auto",
    )
    assert "retries = 5" in (repo / "src/client.py").read_text()


def test_a_sub_agents_question_names_it(perform, stage, clock, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        assert "sub-agent call_01 (raise the retries)" in stage.text(app)
        await pilot.press("1")
        await stage.until(pilot, lambda: "All done." in stage.answers(app))

    perform(
        story,
        stage.call("task", prompt="raise the retries"),
        stage.call("edit", **EDIT),
        stage.say("Raised."),
        stage.say("All done."),
        prompt_profile="lean",
        permission_mode="ask",
        size=(120, 40),
    )
    assert "retries = 5" in (repo / "src/client.py").read_text()


def test_a_question_in_between_is_answered_and_not_remembered(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"hi", "enter")
        await stage.until(pilot, lambda: "Hello." in stage.answers(app))
        await stage.idle(pilot)
        tokens = app._agent.context_tokens
        await pilot.press(*"/btw why?", "enter")
        await stage.until(pilot, lambda: "Because." in stage.answers(app))
        await stage.idle(pilot)
        assert app._agent.context_tokens == tokens
        await pilot.press(*"/btw", "enter")
        await stage.until(pilot, lambda: "write the question behind it" in stage.text(app))

    perform(story, stage.say("Hello."), stage.say("Because.", expect="why"))


def test_an_alternative_is_chosen_from_a_list(perform, stage, repo: Path):
    async def story(app, pilot):
        in_step(app._agent)
        await pilot.press(*"/try 2 --verify true raise it", "enter")
        await stage.until(pilot, lambda: app.query(Picker))
        await pilot.pause()
        seen = stage.text(app)
        assert "Which alternative is kept?" in seen
        assert "1  1 file +1 -0 · true: exit code 0, no output · Written." in seen
        assert "2  the same as 1 · true: exit code 0, no output · Written." in seen
        for number in (1, 2):
            assert f"alternative {number}: raise it" in seen
            assert f"alternative {number}: true: exit code 0, no output · Written." in seen
        assert not (repo / "new.txt").exists()
        await pilot.press("enter")
        await stage.until(pilot, lambda: "Applied; changed: new.txt" in stage.text(app))
        await stage.idle(pilot)

    write = stage.call("bash", command="echo x > new.txt")
    steps = [write, write, stage.say("Written."), stage.say("Written.")]
    perform(story, *steps, permission_mode="auto", size=(120, 40))
    assert (repo / "new.txt").read_text() == "x\n"


def test_none_of_the_alternatives_may_be_kept(perform, stage, repo: Path):
    async def story(app, pilot):
        in_step(app._agent)
        await pilot.press(*"/try 2 look", "enter")
        await stage.until(pilot, lambda: app.query(Picker))
        await pilot.pause()
        assert "1  nothing changed" in stage.text(app)
        assert "2  nothing changed" in stage.text(app)
        await pilot.press("escape")
        await stage.until(pilot, lambda: "None of them is kept." in stage.text(app))

    steps = [stage.say("Looked."), stage.say("Looked.")]
    perform(story, *steps, permission_mode="auto", size=(120, 40))


def test_a_wrong_try_says_how_it_is_written(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"/try it", "enter")
        await stage.until(pilot, lambda: "write /try 3 PROMPT" in stage.text(app))

    perform(story)


def test_the_plain_prompt_tells_what_a_sub_agent_does():
    written: list[str] = []
    view = PlainView(written.append, colour=False)
    ready = ev.CallReady("call_01.1", "edit", EDIT)
    view.show(ev.TaskEvent("call_01", ready))
    view.show(ev.TaskEvent("call_01", ev.TextDelta("hidden")))
    failed = ev.CallFinished("call_01.1", "edit", "Error: no\x1b[31m", is_error=True)
    view.show(ev.TaskEvent("call_01", failed))
    assert "".join(written) == "  call_01: edit src/client.py\n  call_01:   Error: no␛[31m\n"


def test_of_a_sub_agent_its_calls_and_its_failures_are_shown():
    assert task_line(ev.CallFinished("c", "read", "a.txt, lines 1-1 of 1")) == ""
    assert task_line(ev.Notice("the context is nearly full")) == "the context is nearly full"
