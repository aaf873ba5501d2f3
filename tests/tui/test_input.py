"""Writing a prompt on the screen: completion, history, paste, files, own commands, the editor."""

import json
import shutil
from pathlib import Path

import pytest
from textual import events

from ds4_agent.agent.places import find_places
from ds4_agent.agent.pulled import Repository, write_pulled
from ds4_agent.agent.trust import repository_of, trust
from ds4_agent.engine.open import NANO
from ds4_agent.tui.completions import Completions
from ds4_agent.tui.editor import edited, editor_command
from ds4_agent.tui.history import history_file
from ds4_agent.tui.input import PromptInput
from ds4_agent.tui.messages import UserMessage
from ds4_agent.tui.pasted import Pasted
from ds4_agent.tui.picker import Picker
from ds4_agent.tui.tool import ToolMessage


def written(app) -> str:
    return app.query_one(PromptInput).text


def offered(app) -> str | None:
    return app.query_one(Completions).picked


def test_a_command_is_completed_and_its_enter_sends_nothing_yet(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"/wh")
        await stage.until(pilot, lambda: offered(app) == "why-slow")
        await pilot.press("enter")
        await pilot.pause()
        assert written(app) == "/why-slow "
        assert "Nothing was read yet" not in stage.text(app)
        await pilot.press("enter")
        await stage.until(pilot, lambda: "Nothing was read yet" in stage.text(app))

    perform(story, stage.say("-"))


def test_a_command_written_out_is_sent_by_one_enter(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"/cost")
        await stage.until(pilot, lambda: offered(app) == "cost")
        await pilot.press("enter")
        await stage.until(pilot, lambda: "0 prompts" in stage.text(app))

    perform(story, stage.say("-"))


def test_a_file_is_completed_and_its_text_goes_below_the_prompt(perform, stage, repo: Path):
    (repo / ".gitignore").write_text("client.log\n")
    (repo / "client.log").write_text("")

    async def story(app, pilot):
        await pilot.press(*"look at @cli")
        await stage.until(pilot, lambda: offered(app) == "src/client.py")
        assert "client.log" not in stage.text(app)
        await pilot.press("tab")
        await pilot.pause()
        assert written(app) == "look at @src/client.py "
        assert offered(app) is None
        await pilot.press("enter")
        await stage.until(pilot, lambda: "Seen." in stage.answers(app))
        shown = str(app.query_one(UserMessage).visual)
        assert shown == "look at @src/client.py\n+ src/client.py"

    expected = r"look at @src/client\.py\n\nFile src/client\.py:\nimport os\n\nretries = 3"
    perform(story, stage.say("Seen.", expect=expected))


def test_the_list_moves_closes_and_leaves_the_keys_alone(perform, stage):
    async def story(app, pilot):
        await pilot.press("/", "r", "e")
        await stage.until(pilot, lambda: offered(app) == "resume")
        await pilot.press("down")
        assert offered(app) == "rewind"
        await pilot.press("down")
        assert offered(app) == "resume"
        await pilot.press("escape")
        assert offered(app) is None
        assert written(app) == "/re"
        await pilot.press("backspace")
        await stage.until(pilot, lambda: offered(app) == "resume")

    perform(story, stage.say("-"))


def test_the_next_session_has_the_prompts_of_the_last(perform, stage, repo, tmp_path):
    async def first(app, pilot):
        await pilot.press(*"fix the parser", "enter")
        await stage.idle(pilot)

    async def second(app, pilot):
        await pilot.press(*"draft", "up")
        assert written(app) == "fix the parser"
        await pilot.press("down")
        assert written(app) == "draft"
        await pilot.press("ctrl+r")
        await stage.until(pilot, lambda: app.query(Picker))
        await pilot.press(*"PARS")
        await pilot.press("enter")
        await stage.until(pilot, lambda: not app.query(Picker))
        assert written(app) == "fix the parser"

    perform(first, stage.say("-"))
    perform(second, stage.say("-"))
    file = history_file(tmp_path / "home/state", repo)
    assert [json.loads(line)["text"] for line in file.read_text().split("\n") if line] == [
        "fix the parser"
    ]


def test_a_search_without_a_match_picks_nothing(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"/cost", "enter", "ctrl+r")
        await stage.until(pilot, lambda: app.query(Picker))
        await pilot.press(*"zzz", "enter")
        await pilot.pause()
        assert app.query(Picker)
        await pilot.press("backspace", "backspace", "backspace", "enter")
        await stage.until(pilot, lambda: not app.query(Picker))
        assert written(app) == "/cost"

    perform(story, stage.say("-"))


def test_a_large_paste_is_a_mark_and_is_sent_whole(perform, stage):
    lines = "\r".join(f"line {number}" for number in range(40))

    async def story(app, pilot):
        await pilot.press(*"see ")
        app.post_message(events.Paste(lines))
        await stage.until(pilot, lambda: written(app) == "see [Pasted #1: 40 lines]")
        app.post_message(events.Paste("a\r\nb"))
        await stage.until(pilot, lambda: written(app).endswith("lines]a\nb"))
        await pilot.press("backspace", "backspace", "backspace", "enter")
        await stage.until(pilot, lambda: "Read." in stage.answers(app))
        assert "… 20 more lines" in str(app.query_one(UserMessage).visual)

    perform(story, stage.say("Read.", expect="see line 0\nline 1\n(.*\n)*line 39$"))


def test_backspace_takes_a_mark_as_a_whole(perform, stage):
    async def story(app, pilot):
        app.post_message(events.Paste("x" * 2000))
        await stage.until(pilot, lambda: written(app) == "[Pasted #1: 2,000 characters]")
        await pilot.press("backspace")
        await stage.until(pilot, lambda: written(app) == "")

    perform(story, stage.say("-"))


def test_what_was_pasted_is_not_looked_into():
    pasted = Pasted()
    first = pasted.mark("[Pasted #2: 9 lines]" + "\n" * 12 + "end")
    second = pasted.mark("two\n" * 9)
    assert second == "[Pasted #2: 9 lines]"
    assert pasted.whole(first).startswith("[Pasted #2: 9 lines]\n")
    assert pasted.whole("a" + second) == "a" + "two\n" * 9


def test_an_own_command_is_shown_and_told_with_the_next_prompt(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"!echo hel''lo", "enter")
        await stage.until(pilot, lambda: app.query(ToolMessage))
        await stage.idle(pilot)
        assert "$ echo hel''lo" in stage.text(app)
        assert "hello" in stage.text(app)
        await pilot.press(*"what was that", "enter")
        await stage.until(pilot, lambda: "A greeting." in stage.answers(app))
        await stage.idle(pilot)
        await pilot.press(*"and now", "enter")
        await stage.until(pilot, lambda: "Nothing more." in stage.answers(app))

    ran = "what was that\n\nThe user ran a command: echo hel''lo\nexit code 0\nhello"
    perform(
        story,
        stage.say("A greeting.", expect=ran),
        stage.say("Nothing more.", expect="and now$"),
    )


def test_escape_stops_an_own_command(perform, stage):
    async def story(app, pilot):
        await pilot.press(*"!echo on; sleep 600", "enter")
        await stage.until(pilot, lambda: "on\n" in stage.text(app) or " on " in stage.text(app))
        await pilot.press("escape")
        await stage.idle(pilot)
        assert "interrupted" in stage.text(app)

    perform(story, stage.say("-"))


def test_escape_twice_goes_back_and_clears(perform, stage, clock):
    async def story(app, pilot):
        await pilot.press(*"one", "enter")
        await stage.idle(pilot)
        await pilot.press(*"draft", "escape", "escape")
        await pilot.pause()
        assert written(app) == ""
        assert not app.query(Picker)
        await pilot.press("escape")
        clock.now += 5
        await pilot.press("escape")
        await pilot.pause()
        assert not app.query(Picker)
        await pilot.press("escape")
        await stage.until(pilot, lambda: app.query(Picker))
        assert "Back to before which prompt?" in stage.text(app)

    perform(story, stage.say("First."))


def test_a_users_command_is_a_prompt_and_a_repositorys_only_once_trusted(
    perform, stage, repo: Path, tmp_path: Path
):
    places = find_places({"DS4_HOME": str(tmp_path / "home")})
    (places.config / "commands").mkdir(parents=True)
    (places.config / "commands/review.md").write_text("Review $ARGUMENTS, please.")
    (repo / ".ds4/commands").mkdir(parents=True)
    (repo / ".ds4/commands/deploy.md").write_text("Deploy to $1.")

    async def story(app, pilot):
        assert "1 of this repository's own commands" in stage.text(app).replace("\n", " ")
        await pilot.press(*"/review the tests", "enter")
        await stage.until(pilot, lambda: "Fine." in stage.answers(app))
        await stage.idle(pilot)
        await pilot.press(*"/deploy live", "enter")
        await stage.until(pilot, lambda: "There is no command /deploy" in stage.text(app))
        assert written(app) == "/deploy live"
        await pilot.press("ctrl+c", *"/trust", "enter")
        await stage.until(pilot, lambda: app.query(Picker))
        assert ".ds4/commands/deploy.md" in stage.text(app)
        await pilot.press("down", "enter")
        await stage.until(pilot, lambda: "is trusted from now on" in stage.text(app))
        await pilot.press(*"/deploy live", "enter")
        await stage.until(pilot, lambda: "Gone." in stage.answers(app))

    perform(
        story,
        stage.say("Fine.", expect="Review the tests, please\\.$"),
        stage.say("Gone.", expect="Deploy to live\\.$"),
        size=(120, 40),
    )


def test_trust_loads_the_tools_of_the_repository_into_the_session(perform, stage, repo: Path):
    (repo / ".ds4/tools").mkdir(parents=True)
    (repo / ".ds4/tools/greet.py").write_text(
        "from ds4_agent import tool\n\n\n@tool(effect='read')\n"
        "def greet(name: str) -> str:\n    '''Greet.'''\n    return 'hello ' + name\n"
    )

    async def story(app, pilot):
        await pilot.press(*"one", "enter")
        await stage.until(pilot, lambda: "First." in stage.answers(app))
        await stage.idle(pilot)
        assert "greet" not in app._agent.identity.tools
        await pilot.press(*"/trust", "enter")
        await stage.until(pilot, lambda: app.query(Picker))
        await pilot.press("down", "enter")
        await stage.until(pilot, lambda: "greet" in app._agent.identity.tools)
        await stage.idle(pilot)
        assert "First." in stage.answers(app)

    perform(story, stage.say("First."), size=(120, 40))


def test_another_model_goes_on_with_the_session(perform, stage, tmp_path: Path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(stage.say("From the other.", expect="two")) + "\n")

    async def story(app, pilot):
        await pilot.press(*"one", "enter")
        await stage.until(pilot, lambda: "First." in stage.answers(app))
        await stage.idle(pilot)
        session = app._agent.identity.session_id
        await pilot.press(*"/model scripted:/nowhere.jsonl", "enter")
        await stage.until(pilot, lambda: "cannot read the script" in stage.text(app))
        await stage.idle(pilot)
        await pilot.press(*f"/model scripted:{other}", "enter")
        await stage.until(pilot, lambda: app._agent.identity.model.endswith("other.jsonl"))
        await stage.idle(pilot)
        assert app._agent.identity.session_id == session
        await pilot.press(*"two", "enter")
        await stage.until(pilot, lambda: "From the other." in stage.answers(app))

    perform(story, stage.say("First."), size=(120, 40))


def test_pulled_models_are_offered_and_others_told_how_to_get(perform, stage, tmp_path: Path):
    def put(name: str, *, done: bool) -> None:
        repository = Repository(name)
        directory = repository.directory(find_places({"DS4_HOME": str(tmp_path / "home")}).models)
        shutil.copytree(NANO, directory)
        write_pulled(directory, repository, 40 * "0", [], done=done)

    put("maker/whole", done=True)
    put("maker/half", done=False)

    async def story(app, pilot):
        await pilot.press(*"/model maker/none", "enter")
        await stage.until(pilot, lambda: "model pull maker/none` gets it" in stage.text(app))
        await pilot.press(*"/model", "enter")
        await stage.until(pilot, lambda: app.query(Picker))
        assert "maker/whole" in stage.text(app)
        assert "maker/half" not in stage.text(app)
        await pilot.press("down", "down", "down", "enter")
        await stage.until(pilot, lambda: app._agent.identity.model == "nano")

    perform(story, size=(160, 40))


def test_a_session_is_exported_and_nothing_is_overwritten(perform, stage, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"/export out.md", "enter")
        await stage.until(pilot, lambda: "nothing was said" in stage.text(app))
        await pilot.press(*"one", "enter")
        await stage.until(pilot, lambda: "First." in stage.answers(app))
        await stage.idle(pilot)
        await pilot.press(*"/export out.md", "enter")
        await stage.until(pilot, lambda: "Wrote" in stage.text(app))
        await pilot.press(*"/export out.md", "enter")
        await stage.until(pilot, lambda: "is there already" in stage.text(app))

    perform(story, stage.say("First."), size=(120, 40))
    assert "> First." in (repo / "out.md").read_text()


def test_the_theme_changes(perform, stage):
    async def story(app, pilot):
        for typed, name in (("/theme light", "ds4-light"), ("/theme", "ds4-dark")):
            await pilot.press(*typed, "enter")
            await stage.until(pilot, lambda name=name: app.theme == name)
        await pilot.press(*"/theme pink", "enter")
        await stage.until(pilot, lambda: "dark and light" in stage.text(app))

    perform(story, stage.say("-"))


def test_typing_at_a_question_is_no_answer(perform, stage, clock, repo: Path):
    async def story(app, pilot):
        await pilot.press(*"go", "enter")
        await stage.asked(pilot, clock)
        await pilot.press(*"also")
        clock.now += 1
        await pilot.press("enter")
        await pilot.pause()
        assert "retries = 3" in (repo / "src/client.py").read_text()
        assert written(app) == "also"
        clock.now += 1
        await pilot.press("enter")
        await stage.until(pilot, lambda: "Done." in stage.answers(app))

    edit = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}
    perform(story, stage.call("edit", **edit), stage.say("Done."))
    assert "retries = 5" in (repo / "src/client.py").read_text()


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({"VISUAL": "code --wait", "EDITOR": "vi"}, ["code", "--wait"]),
        ({"VISUAL": " ", "EDITOR": "'my editor' -x"}, ["my editor", "-x"]),
    ],
)
def test_the_editor_is_the_users(environment, command):
    assert editor_command(environment) == command


def test_the_editors_text_comes_back_and_a_failure_says_so(tmp_path: Path):
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\nset -e\nstat -c %a "$(dirname "$2")"\necho more >> "$2"\n')
    script.chmod(0o755)
    assert edited("text\n", {"EDITOR": f"{script} -x"}) == "text\nmore"
    with pytest.raises(Exception, match="exit code 1"):
        edited("text", {"EDITOR": "false"})
    with pytest.raises(Exception, match="No such file"):
        edited("text", {"EDITOR": "/nowhere/ed"})


def test_trust_is_said_once(perform, stage, repo: Path, tmp_path: Path):
    trust(repository_of(repo), tmp_path / "home/state/trusted.json")

    async def story(app, pilot):
        await pilot.press(*"/trust", "enter")
        await stage.until(pilot, lambda: "trusted already" in stage.text(app))

    perform(story, stage.say("-"), size=(140, 30))
