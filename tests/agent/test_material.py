"""Files and results of commands below a prompt, and the way back to the words."""

from pathlib import Path

import pytest

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.material import (
    Ran,
    Typed,
    mentioned,
    typed,
    with_files,
    with_names,
    with_results,
)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("A = 1\n")
    (tmp_path / "my notes.txt").write_text("note\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("see @src/a.py, please", ["src/a.py"]),
        ('see @"my notes.txt"', ["my notes.txt"]),
        ("@src/a.py and @src/a.py.", ["src/a.py"]),
        ("a@src/a.py", []),
        ("use @pytest.fixture in @src/", []),
        ("@~nobody-here/x @\0", []),
    ],
)
def test_only_files_are_mentioned(here, text, names):
    assert mentioned(text, here) == names


def test_what_is_below_comes_off_again(here):
    ran = Ran("git  status", "exit code 0\nclean")
    words = 'look at @src/a.py and @"my notes.txt"'
    prompt = with_results(with_files(words, here), [ran])
    assert prompt == (
        'look at @src/a.py and @"my notes.txt"\n\nFile src/a.py:\nA = 1\n\n\n'
        "File my notes.txt:\nnote\n\n\nThe user ran a command: git status\nexit code 0\nclean"
    )
    below = ("src/a.py", "my notes.txt", "$ git status")
    assert typed(prompt) == Typed('look at @src/a.py and @"my notes.txt"', below)


def test_a_file_that_was_not_mentioned_is_the_users_own_text():
    prompt = "I pasted this:\n\nFile x.py:\nprint()"
    assert typed(prompt) == Typed(prompt, ())


def test_a_binary_file_is_refused(here):
    (here / "b.bin").write_bytes(b"\0")
    with pytest.raises(UsageError, match=r"@b\.bin is a binary file"):
        with_files("@b.bin", here)


def test_a_small_model_gets_the_bare_name(here):
    assert with_names("show @src/a.py, not @nothing", here) == "show src/a.py, not @nothing"
    assert with_names('show @"my notes.txt"', here) == 'show "my notes.txt"'
