"""Back to any earlier turn, with or without the files; what is left stays on disk."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.choose import Choice
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.loop import Agent
from ds4_agent.sessions.saved import read_tokens

Make = Callable[..., Agent]
CLIENT = "src/client.py"


def run(agent: Agent, prompt: str) -> list[Any]:
    return list(agent.run(prompt))


def spelled(agent: Agent) -> str:
    return agent._transcript.tokenizer.decode(list(agent.context.tokens))


def edit(play: SimpleNamespace, old: int, new: int) -> dict[str, Any]:
    return play.call("edit", path=CLIENT, old=f"retries = {old}", new=f"retries = {new}")


@pytest.fixture
def three(make_agent: Make, play: SimpleNamespace) -> Agent:
    """Three turns: an edit, another one, a word. Then there is more to say."""
    agent = make_agent(
        edit(play, 3, 5), play.say("Five."), edit(play, 5, 7), play.say("Seven."), play.say("Hm."),
        play.say("Again."), play.say("And again."),
    )  # fmt: skip
    for prompt in ("one", "two", "three"):
        run(agent, prompt)
    return agent


def reopened(agent: Agent, make_agent: Make, home: Path, *steps: Any) -> Agent:
    agent.close()
    directory = home / "data/sessions" / agent.identity.session_id
    return make_agent(*steps, resumes=Choice(directory))


def test_the_model_is_where_it_was_before_that_prompt(three: Agent) -> None:
    whole = spelled(three)

    rewound = three.rewind(2)

    assert (rewound.prompt, rewound.undone, three.turns) == ("two", None, ("one",))
    assert whole.startswith(spelled(three))
    assert "Five." in spelled(three)
    assert "two" not in spelled(three)
    assert run(three, "two again")[-1].text == "Again."
    assert three.turns == ("one", "two again")


def test_without_the_files_the_model_is_told_that_they_stay(three: Agent, repo: Path) -> None:
    three.rewind(2)
    assert "retries = 7" in (repo / CLIENT).read_text()
    run(three, "two again")
    assert "the files did not; these were changed" in spelled(three)


def test_with_the_files_they_are_what_they_were(three: Agent, repo: Path) -> None:
    rewound = three.rewind(2, with_files=True)
    assert "retries = 5" in (repo / CLIENT).read_text()
    assert rewound.undone is not None
    assert rewound.undone.changed == (CLIENT,)
    run(three, "two again")
    assert "latest_reminder" not in spelled(three).split("Five.")[1]


def test_to_the_first_turn_with_all_files(three: Agent, repo: Path) -> None:
    three.rewind(1, with_files=True)
    assert "retries = 3" in (repo / CLIENT).read_text()
    assert (three.turns, three.context_tokens) == ((), 0)
    assert run(three, "anew")[-1].text == "Again."
    assert spelled(three).count("<｜User｜>") == 1


def test_a_file_somebody_else_changed_is_left(three: Agent, repo: Path) -> None:
    (repo / CLIENT).write_text("mine\n")
    rewound = three.rewind(1, with_files=True)
    assert (repo / CLIENT).read_text() == "mine\n"
    assert rewound.undone is not None
    assert "left alone src/client.py" in rewound.undone.text()


@pytest.mark.parametrize("turn", [0, 4, -1])
def test_a_turn_that_is_none_changes_nothing(three: Agent, turn: int) -> None:
    before = spelled(three)
    with pytest.raises(UsageError, match="the turns are 1 to 3"):
        three.rewind(turn)
    assert (spelled(three), len(three.turns)) == (before, 3)


def test_what_was_left_stays_on_disk_and_is_not_shown_again(
    three: Agent, make_agent: Make, play: SimpleNamespace, home: Path
) -> None:
    old = list(three.context.tokens)
    three.rewind(2)
    run(three, "two again")
    new = spelled(three)

    resumed = reopened(three, make_agent, home, play.say("x"))

    assert (spelled(resumed), resumed.turns) == (new, ("one", "two again"))
    shown = play.of_kind(play.replayed(resumed), ev.RunStarted)
    assert [event.prompt for event in shown] == ["one", "two again"]
    saved = read_tokens(home / "data/sessions" / three.identity.session_id)
    assert [i for run in saved.branches[0].runs for i in run.ids] == old


def test_a_rewind_that_nothing_followed_holds_in_the_next_process(
    three: Agent, make_agent: Make, play: SimpleNamespace, home: Path
) -> None:
    three.rewind(3)
    there = spelled(three)
    resumed = reopened(three, make_agent, home, play.say("x"))
    assert (spelled(resumed), resumed.turns) == (there, ("one", "two"))


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_session_that_goes_on_rewinds_to_the_same_place(
    three: Agent, make_agent: Make, play: SimpleNamespace, home: Path, repo: Path, turn: int
) -> None:
    resumed = reopened(three, make_agent, home, play.say("Again."))

    resumed.rewind(turn, with_files=True)
    there, retries = spelled(resumed), (repo / CLIENT).read_text().split()[-1]

    assert retries == {1: "3", 2: "5", 3: "7"}[turn]
    assert ("Five." in there, "Seven." in there, "Hm." in there) == (turn > 1, turn > 2, False)
    assert run(resumed, "again")[-1].text == "Again."
    assert resumed.turns == (*("one", "two", "three")[: turn - 1], "again")


def test_an_interrupted_turn_is_closed_where_one_goes_back_behind_it(
    make_agent: Make, play: SimpleNamespace, home: Path
) -> None:
    agent = make_agent(
        play.call("read", path="Makefile"), play.say("One."), play.say("Two."), max_turns=1
    )
    run(agent, "one")  # its result is still to be told
    run(agent, "two")
    first = spelled(agent)
    resumed = reopened(agent, make_agent, home, play.say("One."))
    resumed.rewind(2)
    run(resumed, "two")
    assert spelled(resumed) == first


def test_back_to_before_a_summary(make_agent: Make, play: SimpleNamespace, home: Path) -> None:
    steps = [play.say("word " * 330), play.say("Summary."), play.say("New."), play.say("Old.")]
    agent = make_agent(*steps, ctx=1200)
    run(agent, "first")
    before = spelled(agent)
    run(agent, "second " + "door " * 100)

    agent.rewind(2)

    assert (spelled(agent), agent.turns) == (before, ("first",))
    assert not agent.uncompact()
    assert run(agent, "third")[-1].text == "Old."


def test_going_back_computes_nothing(make_agent: Make, home: Path) -> None:
    agent = make_agent(model="nano", permission_mode="plan")
    run(agent, "read src/client.py")
    there = agent.context_tokens
    run(agent, "read the Makefile")

    agent.rewind(2)

    assert (agent.context_tokens, agent.context.at_hand()) == (there, there - 1)
    events = run(agent, "run the tests")
    first = next(e for e in events if isinstance(e, ev.StepFinished))
    new = next(e for e in events if isinstance(e, ev.StepStarted))
    assert first.usage.prefilled_tokens <= new.tokens + 1
    assert first.usage.cached_tokens == 0


@pytest.mark.parametrize("is_later", [False, True])
def test_going_back_to_the_first_prompt_computes_the_new_one_alone(
    make_agent: Make, home: Path, is_later: bool
) -> None:
    """Also what it says of this directory and day, which no other session has, is there."""
    agent = make_agent(model="nano", permission_mode="plan")
    run(agent, "read src/client.py")
    if is_later:
        agent = reopened(agent, make_agent, home)
    agent.rewind(1)
    opening = agent._transcript.encode(agent._prefix)

    events = run(agent, "read the Makefile")

    first = next(e for e in events if isinstance(e, ev.StepFinished))
    new = next(e for e in events if isinstance(e, ev.StepStarted))
    assert first.usage.cached_tokens == len(opening)
    assert first.usage.prefilled_tokens == new.tokens - len(opening) < 20


def test_a_copy_takes_its_files_back_and_the_old_session_still_can(
    three: Agent, make_agent: Make, play: SimpleNamespace, home: Path, repo: Path
) -> None:
    three.close()
    directory = home / "data/sessions" / three.identity.session_id
    copy = make_agent(play.say("x"), resumes=Choice(directory, forks=True))
    copy.rewind(1, with_files=True)
    assert "retries = 3" in (repo / CLIENT).read_text()
    (repo / CLIENT).write_text((repo / CLIENT).read_text().replace("= 3", "= 7"))
    copy.close()
    assert make_agent(play.say("x"), resumes=Choice(directory)).undo().changed == (CLIENT,)
    assert "retries = 5" in (repo / CLIENT).read_text()
