"""The real command on a real pseudo-terminal: it starts, it ends rightly, it leaves no trace."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ds4_agent.tui.terminal import is_full_terminal, refusal

# The command with an agent that is none: the screen stumbles over it in its own code.
CRASHING = """
import sys
from ds4_agent.agent.cli import main
from ds4_agent.tui import session
from ds4_agent.tui.conversation import Loaded
class Builder:
    asks_for = ""
    def __call__(self, conversation, choice):
        conversation._post(Loaded(None))
    def close(self):
        pass
session.builder = lambda options: Builder()
sys.exit(main())
"""
PATIENCE = 300.0  # seconds; the machine may be busy


def test_a_whole_session_on_the_screen(start):
    terminal = start()
    terminal.wait_for(b"ready")
    terminal.type(b"hi\r")
    terminal.wait_for(b"Hello")
    terminal.wait_for(b"ready")
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert terminal.is_restored()


def test_a_whole_session_on_the_plain_prompt(start):
    terminal = start("--plain")
    terminal.wait_for(b"ask >")
    terminal.type(b"hi\r")
    terminal.wait_for(b"Hello from the model.")
    terminal.wait_for(b"ctx ")
    terminal.type(b"again\r")
    terminal.wait_for(b"word word")
    terminal.process.send_signal(signal.SIGINT)  # what Ctrl+C is where the terminal controls it
    terminal.wait_for(b"interrupting")
    del terminal.received[: terminal.received.rindex(b"interrupting")]
    terminal.wait_for(b"ask >")
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert terminal.is_restored()


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_what_is_typed_while_the_model_works_is_given_to_it(
    start, repo: Path, script, stage, term: str
):
    model = script(
        stage.call("bash", command="echo begun; until test -e said; do sleep 0.05; done"),
        stage.say("Both read.", expect="two$"),
        stage.say("word " * 3000, delay_ms=5, expect="^three$"),
        stage.say("Four read.", expect="^four$"),
    )
    terminal = start("--plain", "--permission-mode", "auto", model=model, TERM=term)
    terminal.wait_for(b"auto >")
    terminal.type(b"one\r")
    terminal.wait_for(b"* $ echo begun")
    terminal.type(b"two\r")
    time.sleep(0.5)
    (repo / "said").touch()
    terminal.wait_for(b"auto > two")
    terminal.wait_for_prompt(b"Both read.", b"auto >")
    terminal.type(b"three\r")
    terminal.wait_for(b"word word")
    terminal.type(b"four\r")  # no tool boundary comes; the interrupt keeps it
    time.sleep(0.5)
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for_prompt(b"interrupting", b"four")
    terminal.type(b"\r")
    terminal.wait_for_prompt(b"Four read.", b"auto >")
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert terminal.is_restored()


def test_a_prompt_typed_while_the_model_answers_follows(start, script, stage):
    slow = stage.say("word " * 100, delay_ms=10)
    model = script(slow, stage.say("Summary."), stage.say("Second.", expect="^two$|two$"))
    terminal = start("--plain", model=model)
    terminal.wait_for(b"ask >")
    terminal.type(b"one\r")
    terminal.wait_for(b"word")
    terminal.type(b"/compact\rtwo\r/quit\r")
    assert terminal.end() == 0
    text = bytes(terminal.received)
    assert text.index(b"from a summary") < text.index(b"Second.")


def test_forks_on_the_plain_prompt(start, repo: Path, script, stage):
    write = stage.call("bash", command="echo x > new.txt")
    steps = [stage.say(text) for text in ("Hello.", "Because.")]
    model = script(*steps, write, write, stage.say("Written."), stage.say("Written."))
    terminal = start("--plain", "--permission-mode", "auto", model=model, TERM="dumb")
    terminal.wait_for(b"auto >")
    terminal.type(b"hi\r")
    terminal.wait_for_prompt(b"Hello.", b"auto >")
    del terminal.received[:]
    terminal.type(b"/btw why?\r")
    terminal.wait_for_prompt(b"Because.", b"auto >")
    terminal.type(b"/try 2 --verify true write it\r")
    terminal.wait_for(b"number, or Enter for none:")
    assert terminal.received.count(b"/try 2") == 1, "what was typed stands there already"
    assert terminal.received.count(b"true: exit code 0") >= 2
    assert not (repo / "new.txt").exists()
    rows = bytes(terminal.received).partition(b"Which alternative is kept?")[2]
    terminal.type(b"1\r" if b"1  1 file" in rows else b"2\r")
    terminal.wait_for(b"Applied; changed: new.txt")
    terminal.type(b"/quit\r")
    assert terminal.end() == 0
    assert (repo / "new.txt").read_text() == "x\n"


def test_a_dumb_terminal_gets_the_plain_prompt_without_one_escape(start):
    terminal = start(TERM="dumb")
    terminal.wait_for(b"ask >")
    terminal.type(b"hi\r")
    terminal.wait_for(b"Hello from the model.")
    terminal.type(b"/quit\r")
    assert terminal.end() == 0
    assert b"\x1b" not in terminal.received


@pytest.mark.parametrize("arguments", [(), ("--plain",)], ids=["screen", "plain"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_and_restores_the_terminal(start, arguments, number):
    terminal = start(*arguments)
    terminal.wait_for(b"ask >" if arguments else b"ready")
    terminal.process.send_signal(number)
    assert terminal.end() == 128 + number
    assert terminal.is_restored()


def test_a_signal_in_the_middle_of_a_turn(start):
    terminal = start()
    terminal.wait_for(b"ready")
    terminal.type(b"hi\r")
    terminal.wait_for(b"Hello")
    terminal.type(b"again\r")
    terminal.wait_for(b"word word")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 143
    assert terminal.is_restored()


@pytest.mark.parametrize("arguments", [(), ("--plain",)], ids=["screen", "plain"])
def test_a_vanished_terminal_ends_it(start, arguments):
    terminal = start(*arguments)
    terminal.wait_for(b"ask >" if arguments else b"ready")
    terminal.hang_up()
    assert terminal.end() != 0 or arguments  # for a line prompt it is the end of the input


def test_bytes_that_are_no_utf8_do_no_harm(start):
    terminal = start()
    terminal.wait_for(b"ready")
    terminal.type(b"\xff\xfe\xc3hello")
    terminal.wait_for(b"hello")
    terminal.type(b"\x03")
    terminal.type(b"/quit\r")
    assert terminal.end() == 0


@pytest.mark.parametrize("arguments", [(), ("--plain",)], ids=["screen", "plain"])
def test_a_model_that_is_not_there_is_one_line_and_exit_code_2(start, arguments):
    terminal = start(*arguments, model="/no/such/model")
    assert terminal.end() == 2
    assert b"/no/such/model" in terminal.received.splitlines()[-1]
    assert b"Traceback" not in terminal.received
    assert terminal.is_restored()


def test_a_crash_of_the_screen_is_no_success_and_restores_the_terminal(start):
    terminal = start(program=("-c", CRASHING))
    assert terminal.end() == 2
    assert b"Traceback" in terminal.received
    assert terminal.is_restored()


@pytest.mark.parametrize("arguments", [[], ["--plain"]], ids=["screen", "plain"])
def test_without_a_terminal_it_says_so_and_ends_with_1(arguments, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "ds4_agent.agent.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=tmp_path,
        env={**os.environ, "DS4_HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "-p" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_counts_as_a_terminal():
    with Path(os.devnull).open() as nothing:
        assert "stdin is not a terminal" in refusal(nothing, nothing)
    assert "stdin" in refusal(None, None)
    assert not is_full_terminal({"TERM": "dumb"}, sys.__stderr__)
    assert not is_full_terminal({"TERM": "xterm"}, None)


@pytest.mark.parametrize("module", ["ds4_agent.tui.plain", "ds4_agent.tui.app"])
def test_textual_is_loaded_for_the_screen_only(module):
    code = f"import sys, {module}; sys.exit('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0


def test_undo_on_the_plain_prompt(start, repo: Path, script, stage):
    edit = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}
    model = script(stage.call("edit", **edit), stage.say("Replaced it."))
    terminal = start("--plain", "--permission-mode", "auto", model=model)
    terminal.wait_for(b"auto >")
    terminal.type(b"go\r")
    terminal.wait_for_prompt(b"Replaced it.", b"auto >")
    assert "retries = 5" in (repo / "src/client.py").read_text()
    terminal.type(b"/undo\r")
    terminal.wait_for_prompt(b"restored src/client.py", b"auto >")
    assert "retries = 3" in (repo / "src/client.py").read_text()
    terminal.type(b"/undo\r")
    terminal.wait_for_prompt(b"there is nothing to undo", b"auto >")
    terminal.type(b"\x04")
    assert terminal.end() == 0


def test_undo_without_a_session_says_that_there_is_none(start):
    terminal = start("--plain", "--no-session")
    terminal.wait_for(b"ask >")
    terminal.type(b"/undo\r")
    terminal.wait_for_prompt(b"there is no undo with --no-session", b"ask >")
    terminal.type(b"\x04")
    assert terminal.end() == 0


def test_the_plain_prompt_goes_back_opens_and_copies(start, script, stage):
    model = script(stage.say("Did one."), stage.say("Did two."), stage.say("Did three."))
    terminal = start("--plain", model=model)
    terminal.wait_for(b"ask >")
    terminal.type(b"first\r")
    terminal.wait_for_prompt(b"Did one.", b"ask >")
    terminal.type(b"second\r")
    terminal.wait_for_prompt(b"Did two.", b"ask >")
    terminal.type(b"/rewind\r")
    terminal.wait_for_prompt(b"2  first", b"number, or Enter for none")
    terminal.type(b"1\r")
    terminal.wait_for_prompt(b"and the files", b"number, or Enter for none")
    terminal.type(b"1\r")
    terminal.wait_for_prompt(b"Back to before", b"second")  # given back to be changed
    terminal.type(b" time\r")
    terminal.wait_for_prompt(b"Did three.", b"ask >")
    terminal.type(b"/fork\r")
    terminal.wait_for_prompt(b"resumed: 2 turns", b"ask >")
    terminal.type(b"/sessions\r")
    terminal.wait_for_prompt(b"first \xc2\xb7 2 prompts", b"number, or Enter for none")
    terminal.type(b"\r")
    terminal.wait_for(b"ask >")
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert terminal.is_restored()


@pytest.mark.parametrize(("screen", "mark"), [((), b""), (("--plain",), b"ask >")])
def test_c_shows_what_was_and_goes_on(start, script, stage, screen, mark):
    first = start("--plain", "hello there", model=script(stage.say("Hello to you.")))
    first.wait_for_prompt(b"Hello to you.", b"ask >")
    first.type(b"\x04")
    assert first.end() == 0

    terminal = start(*screen, "-c", "and now", model=script(stage.say("Once more.")))
    terminal.wait_for(b"Hello to you.")
    terminal.wait_for(b"resumed: 1 turn")
    terminal.wait_for_prompt(b"Once more.", mark)
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert terminal.is_restored()


def test_a_session_in_use_ends_the_screen_in_one_line(start):
    first = start("--plain", "hello there")
    first.wait_for_prompt(b"Hello from the model.", b"ask >")
    second = start("-c")
    assert second.end() == 1
    assert second.received.count(b" is open in process ") == 1
    assert b"goes on in a copy" in second.received
    first.type(b"\x04")
    assert first.end() == 0


def test_the_plain_prompt_completes_runs_own_commands_and_remembers(start, script, stage):
    steps = stage.say("Seen.", expect="File src/client.py:\nimport os(.*\n)*hello$")
    first = start("--plain", model=script(steps))
    first.wait_for(b"ask >")
    first.type(b"!echo hel''lo\r")
    first.wait_for_prompt(b"exit code 0", b"ask >")
    first.type(b"look at @cli\t")
    first.wait_for(b"src/client.py")
    first.type(b"\r")
    first.wait_for_prompt(b"Seen.", b"ask >")
    first.type(b"/qu\t")
    first.wait_for(b"/quit")
    first.type(b"\r")
    assert first.end() == 0
    second = start("--plain")
    second.wait_for(b"ask >")
    second.type(b"\x12look")
    second.wait_for(b" at @src/client.py")
    second.type(b"\r\x03")
    second.wait_for_prompt(b"again quits", b"ask >")
    second.type(b"\x04")
    assert second.end() == 0


def test_a_question_on_the_plain_prompt_can_be_answered_for_ever(
    start, script, stage, repo: Path, tmp_path: Path
):
    edit = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}
    terminal = start("--plain", model=script(stage.call("edit", **edit), stage.say("Done.")))
    terminal.wait_for(b"ask >")
    terminal.type(b"go\r")
    terminal.wait_for(b"always, diff, or no")
    assert str(repo.resolve()).encode() in terminal.received
    terminal.type(b"diff\r")
    terminal.wait_for_prompt(b"+ retries = 5", b"always, diff, or no")
    terminal.type(b"always\r")
    terminal.wait_for(b"Done.")
    terminal.hang_up()
    terminal.end()
    assert "retries = 5" in (repo / "src/client.py").read_text()
    assert "edit(src/client.py)" in (tmp_path / "home/config/config.toml").read_text()


@pytest.mark.parametrize(("arguments", "mark"), [((), b"ready"), (("--plain",), b"ask >")])
def test_the_editor_has_the_terminal_and_gives_it_back(start, tmp_path: Path, arguments, mark):
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nstty -a | grep -o " icanon"\ncat "$1"\necho edited > "$1"\n')
    editor.chmod(0o755)
    terminal = start(*arguments, EDITOR=str(editor))
    terminal.wait_for(mark)
    terminal.type(b"draft\x07")
    terminal.wait_for(b" icanon")
    terminal.wait_for(b"edited")
    terminal.type(b"\r")
    terminal.wait_for_prompt(b"Hello from the model.", mark)
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert terminal.is_restored()
