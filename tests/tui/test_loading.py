"""The real command while its model is being loaded, on a real pseudo-terminal: it is there for the
user at once."""

from pathlib import Path

import pytest

# The command with a model whose second layer waits for a file.
SLOW = """
import sys, time
from pathlib import Path
from ds4_agent.agent.cli import main
from ds4_agent.engine.api import LoadProgress
from ds4_agent.tui import session
class Builder(session.Builder):
    def __call__(self, conversation, choice=None):
        conversation.loading(LoadProgress(1, 44, 10**9, 44 * 10**9))
        while not Path("loaded").exists():
            time.sleep(0.02)
        return super().__call__(conversation, choice)
session.builder = Builder
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("arguments", "term", "how_far"),
    [
        ((), "xterm-256color", b"loading model 1/44 layers"),
        (("--plain",), "xterm-256color", b"loading model 1/44 layers"),
        ((), "dumb", b"ask > "),
    ],
)
def test_typing_works_at_once_and_says_how_far_the_model_is(
    start, repo: Path, script, stage, arguments: tuple[str, ...], term: str, how_far: bytes
):
    model = script(stage.say("Hello from the model.", expect="^hello$"))
    terminal = start(*arguments, program=("-c", SLOW), model=model, TERM=term)
    terminal.wait_for(how_far)
    terminal.type(b"hel")
    terminal.wait_for(b"hel")
    (repo / "loaded").touch()
    terminal.wait_for(b"scripted:")
    assert b"Hello" not in terminal.received
    terminal.type(b"lo\r")
    terminal.wait_for(b"Hello from the model.")


def test_news_stand_above_the_plain_prompt_and_what_is_typed_stays_in_it(start, repo: Path):
    terminal = start("--plain", program=("-c", SLOW))
    terminal.wait_for(b"loading model 1/44 layers")
    terminal.type(b"half a pro")
    terminal.wait_for(b"half a pro")
    (repo / "loaded").touch()
    terminal.wait_for_prompt(b"model scripted:", b"half a pro")
    terminal.type(b"mpt\r")
    terminal.wait_for_prompt(b"Hello from the model.", b"ask >")
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert terminal.is_restored()


def test_a_session_that_goes_on_is_shown_before_anything_is_asked(start, script, stage):
    first = start("--plain", "hello there", model=script(stage.say("Hello to you.")))
    first.wait_for_prompt(b"Hello to you.", b"ask >")
    first.type(b"\x04")
    assert first.end() == 0
    again = start("--plain", "-c")
    again.wait_for_prompt(b"Hello to you.", b"ask >")
    again.type(b"\x04")
    assert again.end() == 0
