"""The agent's thread and whoever listens to it understand each other in any order of things."""

import threading
from queue import Queue

import pytest

from ds4_agent.agent.events import (
    CallArgument,
    Decision,
    PrefillProgressed,
    RunStarted,
    TextDelta,
    ThinkingDelta,
    ToolOutput,
    TurnEnded,
)
from ds4_agent.tui.conversation import (
    Conversation,
    Loaded,
    LoadFailed,
    Loading,
    Question,
    TurnFailed,
    TurnOver,
    coalesced,
)
from ds4_agent.tui.session import builder

EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}


@pytest.fixture
def talk(options):
    """Start a conversation on a script; returns it and a function for the next item of a kind."""
    begun = []

    def start(*steps, **settings):
        inbox = Queue()
        conversation = Conversation(builder(options(*steps, **settings)), inbox.put)
        begun.append(conversation)
        conversation.start()

        def wait_for(*kinds):
            while True:
                item = inbox.get(timeout=60)
                if isinstance(item, kinds):
                    return item

        return conversation, wait_for

    yield start
    for conversation in begun:
        conversation.close()
        assert not any(t.name == "ds4-conversation" for t in threading.enumerate())


def test_a_turn_is_told_from_its_start_to_its_end(talk, stage):
    conversation, wait_for = talk(stage.say("Hello."))
    assert wait_for(Loaded).agent.identity.model.startswith("scripted:")
    conversation.send("hi")
    assert wait_for(RunStarted).prompt == "hi"
    assert wait_for(TurnEnded).text == "Hello."
    wait_for(TurnOver)


def test_a_failed_load_is_told(talk):
    _, wait_for = talk({"nonsense": 1})
    assert "nonsense" in str(wait_for(LoadFailed).error)


def test_a_failed_run_is_told_and_the_next_prompt_may_come(talk, stage):
    conversation, wait_for = talk(stage.say("Only one."))
    for _ in range(2):
        conversation.send("hi")
        wait_for(TurnOver, TurnFailed)
    wait_for(TurnOver)


def test_a_question_waits_for_its_own_answer(talk, stage, repo):
    back = {"path": "src/client.py", "old": "retries = 5", "new": "retries = 7"}
    conversation, wait_for = talk(
        stage.call("edit", **EDIT), stage.call("edit", **back), stage.say("Done.")
    )
    conversation.send("go")
    first = wait_for(Question).request
    conversation.answer(first, Decision("allow"))
    second = wait_for(Question).request
    conversation.answer(first, Decision("allow"))  # late: it must not decide the second
    conversation.answer(second, Decision("deny", "enough"))
    wait_for(TurnOver)
    assert "retries = 5" in (repo / "src/client.py").read_text()


def test_an_interrupt_refuses_the_question(talk, stage, repo):
    conversation, wait_for = talk(stage.call("edit", **EDIT))
    conversation.send("go")
    wait_for(Question)
    conversation.interrupt()
    assert wait_for(TurnEnded).reason == "interrupted"
    assert "retries = 3" in (repo / "src/client.py").read_text()


def test_an_interrupt_right_behind_a_prompt_is_not_lost(talk, stage):
    conversation, wait_for = talk(stage.say("word " * 2000, delay_ms=5))
    wait_for(Loaded)
    conversation.send("go")
    conversation.interrupt()
    assert wait_for(TurnEnded).reason == "interrupted"


def test_closing_ends_a_running_turn(talk, stage):
    conversation, wait_for = talk(stage.say("word " * 2000, delay_ms=5))
    conversation.send("go")
    wait_for(TextDelta)
    conversation.close()


def test_neighbours_of_a_kind_become_one():
    items = [
        Loading("1/2"),
        Loading("2/2"),
        TextDelta("a"),
        TextDelta("b"),
        ThinkingDelta("c"),
        TextDelta("d"),
        CallArgument("1", "x", "e"),
        CallArgument("1", "x", "f"),
        CallArgument("1", "y", "g"),
        ToolOutput("1", "h"),
        ToolOutput("2", "i"),
        PrefillProgressed(1, 9, 0, 1.0),
        PrefillProgressed(2, 9, 0, 1.0),
        TurnOver(),
        TurnOver(),
    ]
    assert coalesced(items) == [
        Loading("2/2"),
        TextDelta("ab"),
        ThinkingDelta("c"),
        TextDelta("d"),
        CallArgument("1", "x", "ef"),
        CallArgument("1", "y", "g"),
        ToolOutput("1", "h"),
        ToolOutput("2", "i"),
        PrefillProgressed(2, 9, 0, 1.0),
        TurnOver(),
        TurnOver(),
    ]
