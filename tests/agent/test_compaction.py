"""A conversation that nears the end of its context goes on from a summary, and can be had back."""

import json
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.compaction import compaction_room
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.lines import Lines
from ds4_agent.agent.loop import RESERVE, Agent

Make = Callable[..., Agent]
LONG = "word " * 330
ASKS = "Write a summary"


def run(agent: Agent, prompt: str) -> list[Any]:
    return list(agent.run(prompt))


def spelled(agent: Agent) -> str:
    transcript = agent._transcript
    return transcript.tokenizer.decode(transcript._context.tokens)


def test_a_prompt_near_the_end_goes_on_from_a_summary(
    make_agent: Make, play: SimpleNamespace
) -> None:
    agent = make_agent(
        play.say(LONG),
        play.say("They want blue doors.", expect=ASKS),
        play.say("Painted.", expect="They want blue doors[\\s\\S]*paint the second"),
        ctx=1200,
    )
    run(agent, "paint the first")
    before = agent.context_tokens
    assert before < 1200 - compaction_room(1200) - RESERVE

    events = run(agent, "paint the second " + "door " * 100)

    (compacted,) = play.of_kind(events, ev.Compacted)
    assert compacted == ev.Compacted("They want blue doors.", before)
    assert (events[-1].reason, events[-1].text) == ("end", "Painted.")
    assert agent.context_tokens < before
    assert "word word" not in spelled(agent)
    play.assert_well_formed(events)


def test_work_under_way_goes_on_with_its_results(
    make_agent: Make, play: SimpleNamespace, repo: Path
) -> None:
    (repo / "notes.txt").write_text("colour\n" * 60)
    agent = make_agent(
        play.say(LONG),
        play.call("read", path="notes.txt"),
        play.say("Looking at the notes.", expect=ASKS),
        play.say("Blue.", expect="which colour[\\s\\S]*lines 1-60 of 60"),
        ctx=1200,
    )
    run(agent, "hello")

    events = run(agent, "which colour?")

    assert (events[-1].reason, events[-1].text) == ("end", "Blue.")
    assert spelled(agent).count("Looking at the notes.") == 1
    play.assert_well_formed(events)


def test_what_was_read_before_a_summary_may_be_read_again(
    make_agent: Make, play: SimpleNamespace, repo: Path
) -> None:
    (repo / "notes.txt").write_text("colour\n" * 60)
    small, large = (play.call("read", path=path) for path in ("src/client.py", "notes.txt"))
    again = [play.say("Summary.", expect=ASKS), small, small, play.say("Blue.")]
    agent = make_agent(play.say(LONG), small, large, *again, ctx=1300)
    run(agent, "hello")

    events = run(agent, "which colour?")

    assert len(play.of_kind(events, ev.Compacted)) == 1
    assert (events[-1].reason, events[-1].text) == ("end", "Blue.")
    second, third = play.of_kind(events, ev.CallFinished)[2:]
    assert "answered before" not in second.content
    assert "answered before" in third.content


def test_the_old_branch_is_had_back(make_agent: Make, play: SimpleNamespace) -> None:
    steps = [play.say(LONG), play.say("Summary."), play.say("New."), play.say("Old again.")]
    agent = make_agent(*steps, ctx=1200)
    assert not agent.uncompact()
    run(agent, "first")
    before = spelled(agent)
    run(agent, "second " + "door " * 100)

    assert agent.uncompact()

    assert spelled(agent) == before
    events = run(agent, "third")
    assert (events[-1].text, play.of_kind(events, ev.Compacted)) == ("Old again.", [])
    assert spelled(agent).startswith(before)
    assert not agent.uncompact()


def test_a_model_without_a_summary_goes_on_until_the_context_is_full(
    make_agent: Make, play: SimpleNamespace
) -> None:
    agent = make_agent(play.say(LONG), play.say("  "), play.say("Fits."), ctx=1200)
    run(agent, "first")

    events = run(agent, "second " + "door " * 50)

    assert play.of_kind(events, ev.Compacted) == []
    assert (events[-1].reason, events[-1].text) == ("end", "Fits.")


def test_an_interrupted_summary_changes_nothing(make_agent: Make, play: SimpleNamespace) -> None:
    slow = play.say("one two three four", delay_ms=200, chunk=1)
    agent = make_agent(play.say(LONG), slow, play.say("Summary."), play.say("Done."), ctx=1200)
    run(agent, "first")
    before = spelled(agent)
    threading.Timer(0.3, agent.interrupt).start()

    events = run(agent, "second " + "door " * 100)

    assert events[-1].reason == "interrupted"
    assert spelled(agent) == before
    assert run(agent, "second " + "door " * 100)[-1].text == "Done."


# Asked for by the user


def test_a_summary_that_is_asked_for_begins_the_next_prompt(
    make_agent: Make, play: SimpleNamespace
) -> None:
    agent = make_agent(
        play.say("Painted it."),
        play.say("They want blue doors.", expect=ASKS),
        play.say("Second one painted.", expect="They want blue doors\\.\n\npaint the second$"),
        play.say("Third.", expect="^third$"),
    )
    run(agent, "paint the first")
    before = agent.context_tokens

    events = list(agent.compact())

    (compacted,) = play.of_kind(events, ev.Compacted)
    assert (compacted.summary, compacted.context_tokens) == ("They want blue doors.", before)
    assert compacted.usage.output_tokens > 0
    assert run(agent, "paint the second")[-1].text == "Second one painted."
    assert "Painted it." not in spelled(agent)
    assert run(agent, "third")[-1].text == "Third."


def test_a_summary_that_is_asked_for_is_taken_back(make_agent: Make, play: SimpleNamespace) -> None:
    agent = make_agent(play.say("One."), play.say("Summary."), play.say("Two.", expect="^second$"))
    run(agent, "first")
    before = spelled(agent)
    list(agent.compact())

    assert agent.uncompact()

    assert run(agent, "second")[-1].text == "Two."
    assert spelled(agent).startswith(before)


def test_results_that_an_interrupt_kept_from_the_model_are_in_the_new_branch(
    make_agent: Make, play: SimpleNamespace
) -> None:
    expected = "Summary\\.[\\s\\S]*half way[\\s\\S]*go on$"
    agent = make_agent(
        play.call("bash", command="echo half way; sleep 30"),
        play.say("Summary."),
        play.say("ok", expect=expected),
    )
    for event in agent.run("go"):
        if isinstance(event, ev.ToolOutput):
            agent.interrupt()
    list(agent.compact())
    assert run(agent, "go on")[-1].text == "ok"


def test_there_must_be_something_to_summarise(make_agent: Make, play: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="nothing to summarise"):
        make_agent(play.say("x")).compact()


def test_an_interrupted_or_empty_summary_that_was_asked_for_changes_nothing(
    make_agent: Make, play: SimpleNamespace
) -> None:
    slow = play.say("one two three four", delay_ms=200, chunk=1)
    agent = make_agent(play.say("One."), slow, play.say(" "), play.say("Two.", expect="^second$"))
    run(agent, "first")
    before = spelled(agent)
    threading.Timer(0.3, agent.interrupt).start()
    for _ in range(2):
        (notice,) = play.of_kind(list(agent.compact()), ev.Notice)
        assert "stays as it is" in notice.text
        assert spelled(agent) == before
    assert run(agent, "second")[-1].text == "Two."


def test_a_compaction_is_a_line_of_the_stream() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = files("ds4_agent.agent").joinpath("stream_schema.json").read_text(encoding="utf-8")
    (line,) = Lines().feed(ev.Compacted("Summary.", 1000))

    jsonschema.Draft202012Validator(json.loads(text)).validate(line)
    assert (line["event"], line["summary"], line["context_tokens"]) == (
        "compacted",
        "Summary.",
        1000,
    )


@pytest.mark.parametrize("limit", [700, 65_536, 1_048_576])
def test_the_room_for_a_summary_is_never_given_to_a_step(limit: int) -> None:
    assert 64 < compaction_room(limit) <= limit // 8
