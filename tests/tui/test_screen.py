"""A session on the screen, played by keys, with the real agent and a scripted model."""

from dataclasses import replace
from pathlib import Path

import pytest

from ds4_agent.tui.approval import ApprovalPanel
from ds4_agent.tui.input import PromptInput
from ds4_agent.tui.messages import UserMessage
from ds4_agent.tui.session import about
from ds4_agent.tui.status import StatusLine
from ds4_agent.tui.tool import ToolMessage

EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}


def test_a_prompt_is_answered(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"hi there", "enter")
        await stage.until(pilot, lambda: "Good **day**" in stage.answers(app))
        await stage.idle(pilot)
        seen = stage.text(app)
        assert "hi there" in seen
        assert "Good day" in seen
        assert "ctx 2" in seen
        assert "git main" in seen

    perform(story, stage.say("Good **day**"))


def test_typing_works_before_the_model_is_loaded_and_the_prompt_waits(perform, stage):
    async def story(app, pilot):
        assert "loading model" in stage.text(app)
        await pilot.press("x")
        assert app.query_one(PromptInput).text == "x"
        await stage.idle(pilot)
        await stage.until(pilot, lambda: "Done." in stage.answers(app))

    perform(story, stage.say("Done."), prompt="first prompt")


def test_a_first_prompt_may_be_a_command(perform, stage):
    async def story(app, pilot):
        await stage.until(pilot, lambda: "what the model can do here" in stage.text(app))
        await stage.idle(pilot)
        assert "There is no command" not in stage.text(app)

    perform(story, stage.say("never"), prompt="/help", size=(100, 60))


def test_an_edit_is_shown_asked_and_made(perform, stage, clock, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        seen = stage.text(app)
        assert "Allow edit?" in seen
        assert "path: src/client.py" in seen
        assert "- retries = 3" in seen
        assert "+ retries = 5" in seen
        assert "waiting for you" in seen
        assert (repo / "src/client.py").read_text() == "import os\n\nretries = 3\n"
        await pilot.press("1")
        await stage.idle(pilot)
        seen = stage.text(app)
        assert "Edited src/client.py: 1 replacement, line 3" in seen
        assert "3 + retries = 5" in seen
        assert not app.query(ApprovalPanel)

    perform(story, stage.call("edit", **EDIT), stage.say("Replaced."))
    assert (repo / "src/client.py").read_text() == "import os\n\nretries = 5\n"


def test_keys_before_the_grace_is_over_go_to_the_prompt(perform, stage, clock, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.until(pilot, lambda: app.query(ApprovalPanel))
        await pilot.press("y", "1", "enter")
        clock.now += 0.4
        await pilot.press("e")
        clock.now += 0.4  # half a second is counted from the last key
        await pilot.press("y")
        await pilot.pause()
        assert app.query(ApprovalPanel)
        assert app.query_one(PromptInput).text == "y1ey"
        clock.now += 0.6
        await pilot.press("escape")
        await stage.idle(pilot)
        assert app.query_one(PromptInput).text == "y1ey"

    perform(story, stage.call("edit", **EDIT), stage.say("Well."))
    assert "retries = 3" in (repo / "src/client.py").read_text()


def test_a_refusal_tells_the_model_why(perform, stage, clock):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        await pilot.press("n")
        await pilot.pause()
        await pilot.press(*"not now", "enter")
        await stage.idle(pilot)
        assert "Fine." in stage.answers(app)

    perform(story, stage.call("bash", command="rm -r src"), stage.say("Fine.", expect=r"not now"))


def test_what_is_allowed_for_the_session_is_not_asked_again(perform, stage, clock, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        await pilot.press("down", "enter")
        await stage.idle(pilot)
        assert "Done." in stage.answers(app)

    back = {"path": "src/client.py", "old": "retries = 5", "new": "retries = 7"}
    perform(story, stage.call("edit", **EDIT), stage.call("edit", **back), stage.say("Done."))
    assert "retries = 7" in (repo / "src/client.py").read_text()


def test_always_writes_a_rule_and_the_whole_diff_is_a_key_away(
    perform, stage, clock, repo: Path, tmp_path: Path
):
    (repo / "link.py").symlink_to("src/client.py")

    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        assert str(repo.resolve() / "src/client.py")[-20:] in stage.text(app).replace("\n", "")
        await pilot.press("d")
        await pilot.pause()
        assert "1   import os" in stage.text(app)
        assert "3 - retries = 3" in stage.text(app)
        await pilot.press("3")
        await stage.until(pilot, lambda: "Done." in stage.answers(app))
        await stage.idle(pilot)

    edit = {"path": "link.py", "old": "retries = 3", "new": "retries = 5"}
    back = {"path": "link.py", "old": "retries = 5", "new": "retries = 7"}
    steps = (stage.call("edit", **edit), stage.call("edit", **back), stage.say("Done."))
    perform(story, *steps, size=(120, 40))
    assert "retries = 7" in (repo / "src/client.py").read_text()
    assert 'allow = ["edit(link.py)"]' in (tmp_path / "home/config/config.toml").read_text()


def test_escape_interrupts_and_gives_queued_prompts_back(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.until(pilot, lambda: "word" in stage.answers(app))
        await pilot.press("n", "enter", "d")
        assert "1 queued" in stage.text(app)
        await pilot.press("escape")
        await stage.idle(pilot)
        assert "Interrupted" in stage.text(app)
        assert app.query_one(PromptInput).text == "n\nd"

    perform(story, stage.say("word " * 2000, delay_ms=5))


def test_a_queued_prompt_follows(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"one", "enter", *"two", "enter")
        await stage.until(pilot, lambda: "Second." in stage.answers(app))
        await stage.idle(pilot)
        assert "two" in stage.text(app)

    perform(story, stage.say("First."), stage.say("Second.", expect="two"))


def prompts(app):
    return [str(message.visual) for message in app.query(UserMessage)]


def test_a_queued_prompt_reaches_the_model_with_its_next_results(perform, stage, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"one", "enter")
        await stage.until(pilot, lambda: "running bash" in stage.text(app))
        await pilot.press(*"two", "enter")
        assert "1 queued" in stage.text(app)
        (repo / "said").touch()
        await stage.until(pilot, lambda: "Both." in stage.answers(app))
        await stage.idle(pilot)
        assert app.query_one(StatusLine).status.queued == 0
        assert prompts(app) == ["one", "two"]

    command = "until test -e said; do sleep 0.05; done"
    steps = (stage.call("bash", command=command), stage.say("Both.", expect="two$"))
    perform(story, *steps, permission_mode="auto")


def test_a_summary_can_be_asked_for_and_taken_back(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"/compact", "enter")
        await stage.until(pilot, lambda: "nothing to summarise yet" in stage.text(app))
        await stage.idle(pilot)
        await pilot.press(*"one", "enter")
        await stage.until(pilot, lambda: "First." in stage.answers(app))
        await stage.idle(pilot)
        await pilot.press(*"/compact", "enter")
        await stage.until(pilot, lambda: "goes on from a summary" in stage.text(app))
        await stage.idle(pilot)
        await pilot.press(*"two", "enter")
        await stage.until(pilot, lambda: "Second." in stage.answers(app))
        await stage.idle(pilot)
        await pilot.press(*"/uncompact", "enter")
        await stage.until(pilot, lambda: "Back in the whole" in stage.text(app))

    second = stage.say("Second.", expect="They count\\.\n\ntwo$")
    perform(story, stage.say("First."), stage.say("They count."), second, size=(80, 40))


def test_escape_while_a_question_stands_refuses_it(perform, stage, clock, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        await pilot.press("ctrl+c")  # at a question: interrupt the turn
        await stage.idle(pilot)
        assert not app.query(ApprovalPanel)
        assert app.focused is app.query_one(PromptInput)

    perform(story, stage.call("edit", **EDIT))
    assert "retries = 3" in (repo / "src/client.py").read_text()


def test_control_c_clears_then_quits(perform, stage, clock):
    async def story(app, pilot):
        await pilot.press(*"draft", "ctrl+c")
        assert app.query_one(PromptInput).text == ""
        await pilot.press("ctrl+c")
        assert app.return_code is None
        clock.now += 3
        await pilot.press("ctrl+c")
        assert app.return_code is None
        await pilot.press("ctrl+c")
        await pilot.pause()

    assert perform(story, stage.say("-")).return_code == 0


@pytest.mark.parametrize("keys", [["ctrl+d"], [*"/quit", "enter"]])
def test_leaving(perform, stage, keys):
    async def story(app, pilot):
        await pilot.press(*keys)
        await pilot.pause()

    assert perform(story, stage.say("-")).return_code == 0


def test_shift_tab_walks_the_modes_and_the_agent_follows(perform, stage, repo: Path):
    async def story(app, pilot):
        await pilot.press("shift+tab")
        assert app.query_one(StatusLine).status.mode == "accept-edits"
        await pilot.press(*"go", "enter")
        await stage.idle(pilot)
        for mode in ("plan", "auto", "ask"):
            await pilot.press("shift+tab")
            assert app.query_one(StatusLine).status.mode == mode

    perform(story, stage.call("edit", **EDIT), stage.say("Done."))
    assert "retries = 5" in (repo / "src/client.py").read_text()


def test_commands(perform, stage):
    async def story(app, pilot):
        for command, said in (
            ("/help", "Shift+Tab"),
            ("/tools", "edit(path, old, new"),
            ("/cost", "0 prompts"),
            ("/why-slow", "Nothing was read yet."),
            ("/nonsense", "There is no command /nonsense"),
        ):
            await pilot.press(*command, "enter")
            await stage.until(pilot, lambda said=said: said in stage.text(app))

    perform(story, stage.say("-"), size=(100, 60))


def test_the_theme_that_was_chosen_is_the_next_sessions(perform, stage, tmp_path: Path):
    async def choose(app, pilot):
        assert app.theme == "ds4-dark"
        await pilot.press(*"/theme light", "enter")
        await stage.until(pilot, lambda: app.theme == "ds4-light")

    async def look(app, pilot):
        assert app.theme == "ds4-light"
        (tmp_path / "home/state/theme").write_bytes(b"\xffpink\x1b[31m")

    async def look_again(app, pilot):
        assert app.theme == "ds4-dark"

    for story in (choose, look, look_again):
        perform(story, stage.say("-"))


def test_the_clock_of_a_screen_that_is_taken_down_does_nothing(perform, stage):
    async def story(app, pilot):
        app._busy_since = 0.0
        await app.query_one(StatusLine).remove()
        app._tick()

    assert perform(story, stage.say("-")).return_code is None


def test_lines_keep_their_order_however_fast_they_are_typed(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"one", "ctrl+j", *"two", "shift+enter", *"three")
        prompt = app.query_one(PromptInput)
        assert prompt.text == "one\ntwo\nthree"
        assert prompt.size.height == 3
        await pilot.press("enter")
        await stage.idle(pilot)
        await pilot.press("up")
        assert prompt.text == "one\ntwo\nthree"
        await pilot.press("down")
        assert prompt.text == ""

    perform(story, stage.say("-"))


def test_details_open_and_fold(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.idle(pilot)
        assert "retries = 3" not in stage.text(app)
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert "retries = 3" in stage.text(app)
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert "retries = 3" not in stage.text(app)
        await pilot.click(ToolMessage)
        await pilot.pause()
        assert "retries = 3" in stage.text(app)

    perform(story, stage.call("read", path="src/client.py"), stage.say("Read."))


def test_thinking_is_one_line_until_it_is_opened(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.idle(pilot)
        assert "✻ thought 10 characters" in stage.text(app)
        assert "let me see" not in stage.text(app)
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert "let me see" in stage.text(app)

    perform(story, stage.say("let me see</think>Seen."), think="low")


def test_a_model_that_cannot_be_loaded_ends_the_app_with_its_reason(perform, stage):
    async def story(app, pilot):
        await stage.until(pilot, lambda: app.load_error is not None)

    app = perform(story, {"nonsense": 1}, prompt="x")
    assert "nonsense" in str(app.load_error)


def test_an_error_of_the_engine_is_shown_and_the_session_goes_on(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"one", "enter")
        await stage.idle(pilot)
        await pilot.press(*"two", "enter")
        await stage.idle(pilot)
        assert "used up" in stage.text(app)
        assert app.is_running

    perform(story, stage.say("First."))


def test_leaving_in_the_middle_of_a_turn(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.until(pilot, lambda: "word" in stage.answers(app))
        app.action_leave(143)
        await pilot.pause()

    assert perform(story, stage.say("word " * 2000, delay_ms=5)).return_code == 143


@pytest.mark.parametrize("size", [(40, 15), (80, 24), (120, 40)])
def test_every_size_is_usable(perform, stage, clock, size):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        seen = stage.text(app)
        for choice in ("1 Allow once", "Deny", "ask"):
            assert choice in seen
        await pilot.press("y")
        await stage.idle(pilot)
        assert "Done." in stage.text(app)

    perform(story, stage.call("edit", **EDIT), stage.say("Done."), size=size)


def test_yolo_is_what_the_status_line_says(options, stage):
    chosen = replace(options(stage.say("-")), yolo=True)
    assert about(chosen).mode_shown("ask") == "yolo"
    assert about(replace(chosen, yolo=False)).mode_shown("ask") == "ask"


def test_undo_takes_the_last_turn_back_and_the_model_is_told(perform, stage, repo: Path):
    file = repo / "src/client.py"

    async def story(app, pilot):
        await pilot.press(*"/undo", "enter")
        await stage.until(pilot, lambda: "nothing to undo" in stage.text(app))
        await stage.idle(pilot)
        await pilot.press(*"go", "enter")
        await stage.until(pilot, lambda: "Replaced." in stage.answers(app))
        await stage.idle(pilot)
        assert file.read_text() == "import os\n\nretries = 5\n"
        before = app._agent.context_tokens
        await pilot.press(*"/undo", "enter")
        await stage.until(pilot, lambda: "restored src/client.py" in stage.text(app))
        await stage.idle(pilot)
        assert file.read_text() == "import os\n\nretries = 3\n"
        assert app._agent.context_tokens == before  # what the model has read stays as it was
        await pilot.press(*"and now", "enter")
        await stage.until(pilot, lambda: "I see." in stage.answers(app))

    perform(
        story,
        stage.call("edit", **EDIT),
        stage.say("Replaced."),
        stage.say("I see."),
        permission_mode="auto",
    )


def test_undo_waits_for_the_end_of_the_turn(perform, stage, clock, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.until(pilot, lambda: app.query_one(StatusLine).status.busy)
        await stage.until(pilot, lambda: "word" in stage.text(app))
        await pilot.press(*"/undo", "enter")
        await stage.until(pilot, lambda: "/undo works between turns" in stage.text(app))
        await pilot.press("escape")
        await stage.idle(pilot)

    perform(story, stage.say("word " * 2000, delay_ms=5))
