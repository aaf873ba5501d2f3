"""The transcript is walked, opened, copied from and searched, however long it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds4_agent.agent import events as ev
from ds4_agent.agent.replay import Story
from ds4_agent.sessions.saved import SavedTurn
from ds4_agent.tui.approval import ApprovalPanel
from ds4_agent.tui.input import PromptInput
from ds4_agent.tui.messages import EarlierMessage, UserMessage
from ds4_agent.tui.passages import passage_text, passages_of
from ds4_agent.tui.transcript import AT_FIRST, MOST, Transcript
from ds4_agent.tui.walk import WalkPanel

READ = {"path": "src/client.py"}


def test_a_block_is_walked_to_opened_and_copied(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.idle(pilot)
        await pilot.press("tab")
        await pilot.pause()
        assert "Transcript · 3 of 3" in stage.text(app)
        await pilot.press("c")
        await pilot.pause()
        assert app.clipboard == "It **retries**."
        await pilot.press("up", "enter")
        await pilot.pause()
        assert "retries = 3" in stage.text(app)
        await pilot.press("c")
        await pilot.pause()
        assert "retries = 3" in app.clipboard
        await pilot.press("up", "c", "escape")
        await pilot.pause()
        assert app.clipboard == "go"
        assert not app.query(WalkPanel)
        assert app.focused is app.query_one(PromptInput)

    perform(story, stage.call("read", **READ), stage.say("It **retries**."))


def test_typing_goes_back_to_the_prompt(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.idle(pilot)
        await pilot.press("tab", "W", "h", "y")
        await pilot.pause()
        assert app.query_one(PromptInput).text == "Why"

    perform(story, stage.say("Done."))


def test_a_walk_stays_when_a_turn_ends_and_gives_way_to_a_question(perform, stage, clock, repo):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        await pilot.press("1")
        await stage.until(pilot, lambda: not app.query(ApprovalPanel))
        await pilot.press("tab")
        await stage.until(pilot, lambda: app.query(WalkPanel))
        (repo / "said").touch()
        await stage.asked(pilot, clock)
        assert not app.query(WalkPanel)
        await pilot.press("1")
        await stage.until(pilot, lambda: "word" in stage.answers(app))
        await pilot.press("tab")
        await stage.idle(pilot)
        assert app.query(WalkPanel)

    wait = "until test -e said; do sleep 0.05; done"
    edit = {**READ, "old": "retries = 3", "new": "retries = 5"}
    perform(
        story,
        stage.call("bash", command=wait),
        stage.call("edit", **edit),
        stage.say("word " * 40, delay_ms=5),
    )


def test_words_are_found_folded_or_not(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.idle(pilot)
        await pilot.press("ctrl+f", *"RETRIES = 3")
        await pilot.pause()
        assert "in 1 block" in stage.text(app)
        assert "Find · 2 of 3" in stage.text(app)
        await pilot.press("x")
        await pilot.pause()
        assert "not found" in stage.text(app)
        await pilot.press("backspace", "enter")
        await pilot.pause()
        assert "retries = 3" in stage.text(app).partition("Transcript")[0]

    perform(story, stage.call("read", **READ), stage.say("Read."), size=(80, 30))


def story_of(turns):
    """A story as the event log tells it."""
    saved = []
    for turn in range(turns):
        use = {"id": f"c{turn}", "name": "read", "input": {"path": f"file{turn}.py"}}
        result = {
            "tool_use_id": f"c{turn}",
            "content": f"file{turn}.py, lines 1-1 of 1\nx = {turn}",
        }
        lines = (
            {"type": "assistant", "message": {"content": [{"type": "tool_use", **use}]}},
            {"type": "user", "message": {"content": [{"type": "tool_result", **result}]}},
            {
                "type": "assistant",
                "message": {"content": [{"type": "text", "text": f"answer {turn}"}]},
            },
            {"type": "result", "result": f"answer {turn}"},
        )
        saved.append(SavedTurn(f"prompt {turn}", 0, turn, 0, lines))
    return Story(saved)


def test_a_long_session_is_laid_out_at_its_end_and_the_rest_when_it_is_wanted(perform, stage):
    async def story(app, pilot):
        transcript = app.query_one(Transcript)
        await transcript.replay(story_of(1000))
        await pilot.pause()
        assert "answer 999" in stage.text(app)
        assert len(transcript.blocks) < 3 * AT_FIRST
        message = app.query_one(EarlierMessage)
        assert "994 earlier prompts" in str(message.visual)
        first = transcript.blocks[0].text
        transcript.scroll_home(animate=False)
        await stage.until(pilot, lambda: len(transcript.blocks) > 40)
        await stage.until(pilot, lambda: first in stage.text(app))  # the reader stays there
        assert await transcript.find("x = 900", -1) == 1
        await pilot.pause()
        assert transcript.text.endswith("x = 900")
        prompts = [message.prompt for message in app.query(UserMessage)]
        assert prompts == [f"prompt {turn}" for turn in range(900, 1000)]

    perform(story, stage.say("-"))


def test_what_is_too_much_is_left_out_while_the_reader_is_at_the_end(perform, stage):
    async def story(app, pilot):
        transcript = app.query_one(Transcript)
        for event in story_of(200).events():
            if isinstance(event, ev.RunStarted):
                await transcript.ask(event.prompt)
            else:
                await transcript.show(event)
        await pilot.pause()
        assert len(transcript.blocks) <= MOST
        assert "answer 199" in stage.text(app)
        await transcript.go_back("prompt 3")
        assert [message.prompt for message in app.query(UserMessage)][-1] == "prompt 2"
        assert not app.query(EarlierMessage) or "prompt 0" not in stage.text(app)

    perform(story, stage.say("-"))


@given(st.integers(0, 12), st.integers(1, 7))
def test_passages_are_the_whole_story_however_it_comes(turns, size):
    whole = list(story_of(turns).events())
    pieces = []
    for event in whole:
        if isinstance(event, ev.TextDelta):
            text = event.text
            pieces += [ev.TextDelta(text[i : i + size]) for i in range(0, len(text), size)]
        else:
            pieces.append(event)
    passages = list(passages_of(pieces))
    assert [event for passage in passages for event in passage] == whole
    assert all(isinstance(passage[0], ev.RunStarted | ev.TextDelta) for passage in passages)
    assert all("answer" in passage_text(p) or "prompt" in passage_text(p) for p in passages)


@pytest.mark.parametrize("open_calls", [1, 2])
def test_a_passage_ends_when_all_its_calls_are_answered(open_calls):
    started = [ev.CallStarted(str(n), "bash") for n in range(open_calls)]
    ended = [ev.CallFinished(str(n), "bash", "exit code 0") for n in range(open_calls)]
    output = [ev.ToolOutput("0", "tick"), ev.ToolOutput("0", "tack")]
    passages = list(passages_of([*started, *output, *ended, ev.TextDelta("So")]))
    assert passages == [[*started, *ended], [ev.TextDelta("So")]]
