"""The diff of a call nobody has allowed yet."""

from pathlib import Path

import pytest

from ds4_agent.agent.preview import preview

TEXT = "".join(f"line {n}\n" for n in range(20))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    return path


def test_an_edit_is_shown_with_the_lines_around_it(file):
    shown = preview("edit", {"path": "a.txt", "old": "line 9", "new": "LINE 9"}, str(file))
    assert "-line 9\n+LINE 9\n" in shown.diff
    assert " line 8\n" in shown.diff
    assert "line 0" not in shown.diff
    assert file.read_text() == TEXT


def test_a_write_is_shown_as_what_it_changes(file, tmp_path):
    shown = preview("write", {"path": "a.txt", "content": TEXT + "more\n"}, str(file))
    assert "+more" in shown.diff
    assert "-line" not in shown.diff
    new = preview("write", {"path": "b.txt", "content": "x\n"}, str(tmp_path / "b.txt"))
    assert new.diff.startswith("--- /dev/null")


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("edit", {"old": "nothing like it", "new": "x"}, "not in the file"),
        ("edit", {"old": "line", "new": "x"}, "20 times"),
        ("write", {"content": TEXT}, "stay as it is"),
        ("bash", {"command": "ls"}, "changes no file by itself"),
    ],
)
def test_why_there_is_none(file, tool, arguments, said):
    shown = preview(tool, arguments, str(file))
    assert not shown.diff
    assert said in shown.note


def test_what_is_no_file_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in preview("write", {"content": "x"}, str(tmp_path / "pipe")).note
    gone = preview("edit", {"old": "a", "new": "b"}, str(tmp_path / "gone"))
    assert gone.note == "There is no such file."
