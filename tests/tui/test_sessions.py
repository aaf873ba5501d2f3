"""Sessions on the screen: chosen from a list, shown as they were, gone back in, copied."""

import asyncio

import pytest
from textual.app import App

from ds4_agent.agent.build import RunOptions, build_agent
from ds4_agent.agent.choose import Choice
from ds4_agent.agent.config import Settings
from ds4_agent.agent.events import StepFinished
from ds4_agent.agent.places import find_places
from ds4_agent.tui.conversation import Conversation
from ds4_agent.tui.input import PromptInput
from ds4_agent.tui.look import DARK
from ds4_agent.tui.messages import UserMessage
from ds4_agent.tui.picker import Picker
from ds4_agent.tui.session import builder
from ds4_agent.tui.tool import ToolMessage

EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}


@pytest.fixture
def earlier(options, stage):
    """A session of an earlier process with these prompts; returns its directory."""

    def make(*prompts):
        steps = [stage.call("edit", **EDIT), *(stage.say(f"Did {p}.") for p in prompts)]
        chosen = options(*steps, permission_mode="auto")
        agent = build_agent(chosen)
        for prompt in prompts:
            list(agent.run(prompt))
        agent.close()
        return chosen.places.sessions / agent.identity.session_id

    return make


async def chosen(pilot, stage, *keys):
    await stage.until(pilot, lambda: pilot.app.query(Picker))
    await pilot.pause()
    await pilot.press(*keys)


def asked(app):
    return [message.prompt for message in app.query(UserMessage)]


def test_a_session_is_shown_as_it_was_and_goes_on(perform, stage, earlier):
    directory = earlier("one", "two")

    async def story(app, pilot):
        await stage.until(pilot, lambda: "Did two." in stage.answers(app))
        await stage.idle(pilot)
        assert asked(app) == ["one", "two"]
        assert len(app.query(ToolMessage)) == 1
        seen = stage.text(app)
        assert "resumed: 2 turns" in seen
        assert "5 + retries" not in seen
        await pilot.press(*"go", "enter")
        await stage.until(pilot, lambda: "Three." in stage.answers(app))
        await stage.idle(pilot)

    perform(story, stage.say("Three."), size=(100, 50), resumes=Choice(directory))


def test_r_asks_which_and_goes_on_with_it(perform, stage, earlier):
    earlier("paint the doors")
    earlier("wash the car")

    async def story(app, pilot):
        await stage.until(pilot, lambda: app.query(Picker))
        await pilot.pause()
        seen = stage.text(app)
        assert "Go on with which session?" in seen
        assert "paint the doors · 1 prompt" in seen
        await pilot.press("down" if "› wash" in seen else "up", "enter")
        await stage.until(pilot, lambda: "Did" in stage.answers(app))
        await stage.idle(pilot)
        assert asked(app) == ["paint the doors"]

    perform(story, stage.say("x"), prompt=None, asks_for="resume")


def test_choosing_none_begins_a_new_session(perform, stage, earlier):
    earlier("one")

    async def story(app, pilot):
        await chosen(pilot, stage, "escape")
        await stage.idle(pilot)
        await pilot.press(*"hi", "enter")
        await stage.until(pilot, lambda: "New." in stage.answers(app))
        await stage.idle(pilot)
        assert asked(app) == ["hi"]

    perform(story, stage.say("New."), prompt=None, asks_for="resume")


def test_another_session_is_opened_in_place_of_this_one(perform, stage, earlier):
    earlier("one")

    async def story(app, pilot):
        await pilot.press(*"hi", "enter")
        await stage.until(pilot, lambda: "Here." in stage.answers(app))
        await stage.idle(pilot)
        first = app._agent.identity.session_id
        await pilot.press(*"/resume", "enter")
        await chosen(pilot, stage, "enter")
        await stage.until(pilot, lambda: "Did one." in stage.answers(app))
        await stage.idle(pilot)
        assert asked(app) == ["one"]
        assert app._agent.identity.session_id != first
        await pilot.press(*"on", "enter")
        await stage.until(pilot, lambda: "There." in stage.answers(app))
        await stage.idle(pilot)

    perform(story, stage.say("Here."), stage.say("There."), size=(80, 50))


def test_rewind_takes_the_turns_away_and_gives_the_prompt_back(perform, stage, repo):
    async def story(app, pilot):
        for prompt in ("one", "two"):
            await pilot.press(*prompt, "enter")
            await stage.until(pilot, lambda p=prompt: f"Did {p}." in stage.answers(app))
            await stage.idle(pilot)
        await pilot.press(*"/rewind", "enter")
        await stage.until(pilot, lambda: app.query(Picker))
        await pilot.pause()
        assert "› two" in stage.text(app)
        await pilot.press("down", "enter")
        await stage.until(pilot, lambda: "and the files" in stage.text(app))
        await pilot.press("down", "enter")
        await stage.until(pilot, lambda: not asked(app))
        await stage.idle(pilot)
        assert app.query_one(PromptInput).text == "one"
        assert "restored src/client.py" in stage.text(app)
        assert not app.query(ToolMessage)
        await pilot.press("enter")
        await stage.until(pilot, lambda: "Again." in stage.answers(app))
        await stage.idle(pilot)
        assert app._agent.turns == ("one",)

    edit, one, two = stage.call("edit", **EDIT), stage.say("Did one."), stage.say("Did two.")
    perform(story, edit, one, two, stage.say("Again."), permission_mode="auto", size=(80, 40))
    assert "retries = 3" in (repo / "src/client.py").read_text()


def test_fork_goes_on_in_a_copy(perform, stage, options):
    async def story(app, pilot):
        await pilot.press(*"hi", "enter")
        await stage.until(pilot, lambda: "Here." in stage.answers(app))
        await stage.idle(pilot)
        first = app._agent.identity.session_id
        await pilot.press(*"/fork", "enter")
        await stage.until(pilot, lambda: app._agent.identity.session_id != first)
        await stage.idle(pilot)
        assert asked(app) == ["hi"]
        await pilot.press(*"on", "enter")
        await stage.until(pilot, lambda: "There." in stage.answers(app))
        await stage.idle(pilot)

    perform(story, stage.say("Here."), stage.say("There."), size=(80, 40))


def test_a_copy_hangs_on_its_origin_and_switching_computes_nothing(perform, stage):
    """Between a session and its copy: each is where it was, and the next prompt computes only what
    is new."""

    async def story(app, pilot):
        for prompt in ("hi", "/fork", "on", "/sessions"):
            await pilot.press(*prompt, "enter")
            await pilot.pause()
            await stage.idle(pilot)
        copy = app._agent.identity.session_id
        await stage.until(pilot, lambda: app.query(Picker))
        await pilot.pause()
        origin, branch = [line for line in stage.text(app).splitlines() if " · just now" in line]
        assert origin.startswith(" › hi · ")
        assert branch.startswith("   └ hi · ")
        assert "you are here" in branch
        await pilot.press("down", "enter")  # where one is already
        await pilot.pause()
        await stage.idle(pilot)
        assert app._agent.identity.session_id == copy
        assert asked(app) == ["hi", "on"]
        await pilot.press(*"/sessions", "enter")
        await chosen(pilot, stage, "enter")
        await stage.until(pilot, lambda: app._agent.identity.session_id != copy)
        await stage.idle(pilot)
        assert asked(app) == ["hi"]
        await pilot.press(*"more", "enter")
        await stage.until(pilot, lambda: "Once more." in stage.answers(app))
        await stage.idle(pilot)
        assert app._orders.tally.last.prefilled_tokens < 20

    said = (stage.say("Here."), stage.say("There."), stage.say("Once more."))
    perform(story, *said, size=(100, 40))


def test_switching_between_branches_prefills_nothing_of_the_bundled_model(repo, tmp_path):
    places = find_places({"DS4_HOME": str(tmp_path / "home")})
    build = builder(RunOptions(Settings(permission_mode="auto"), repo, places))
    talk = Conversation(build, lambda item: None)
    try:
        origin = build(talk)
        list(origin.run("read src/client.py"))
        name, length = origin.identity.session_id, origin.context_tokens
        copy = build(talk, build.choice(name, forks=True))
        origin.close()
        list(copy.run("git status"))
        back = build(talk, build.choice(name))
        copy.close()
        assert back.context_tokens == length
        steps = [e for e in back.run("git status") if isinstance(e, StepFinished)]
        back.close()
    finally:
        build.close()
    assert steps[0].usage.cached_tokens >= length - 1
    assert steps[0].usage.prefilled_tokens < 20  # the new prompt


@pytest.mark.parametrize("command", ["resume", "rewind"])
def test_where_there_is_nothing_to_choose_it_is_said(perform, stage, command):
    async def story(app, pilot):
        await pilot.press(*f"/{command}", "enter")
        await stage.until(pilot, lambda: "There is no " in stage.text(app))
        assert not app.query(Picker)

    perform(story, stage.say("x"))


def test_a_long_list_keeps_the_picked_row_in_sight():
    picked = []

    class Lists(App[None]):
        def on_picker_picked(self, message):
            picked.append(message.index)

        def get_theme_variable_defaults(self):
            return DARK.variables

        def compose(self):
            yield Picker("x", "Which?", [f"row {number}" for number in range(100)])

    async def story():
        app = Lists()
        async with app.run_test(size=(60, 20)) as pilot:
            await pilot.press("end", "up")
            picker = app.query_one(Picker)
            assert "› row 98" in str(picker.query_one("#rows").render())
            assert picker.size.height < 20
            await pilot.press("home", "up", "enter", "escape")
            await pilot.pause()

    asyncio.run(story())
    assert picked == [0, None]
