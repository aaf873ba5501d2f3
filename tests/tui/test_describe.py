"""Words for calls, results and numbers."""

import pytest

from ds4_agent.tui.describe import (
    DiffLine,
    arguments_text,
    bar,
    call_line,
    count,
    diff_lines,
    hides_something,
    hung,
    plural,
    result_line,
    seconds,
    went_wrong,
    written_lines,
)

DIFF = """\
--- a/x.py
+++ b/x.py
@@ -1,3 +1,4 @@
 import os
-a = 1
+a = 2
+b = 3
 end
@@ -40,2 +41,1 @@
-last
 line
\\ No newline at end of file
"""


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("bash", {"command": "pytest -q"}, "$ pytest -q"),
        ("bash", {"command": "sleep 9", "background": True}, "$ sleep 9 &"),
        ("bash", {"command": "a\n  b\n"}, "$ a ⏎ b"),
        ("read", {"path": "a.py"}, "read a.py"),
        ("read", {"path": "a.py", "start_line": 12}, "read a.py from line 12"),
        ("search", {"pattern": "x.*y", "path": "src"}, "search x.*y in src"),
        ("list", {}, "list ."),
        ("edit", {"path": "a.py", "old": "secret"}, "edit a.py"),
        ("git", {"action": "commit", "message": "say"}, "git commit say"),
        ("todo", {"path": "x", "deep": True}, "todo path=x deep=true"),
        ("bash", {"command": "\x1b]0;t\x07"}, "$ ␛]0;t␇"),
    ],
)
def test_a_call_in_one_line(name, arguments, line):
    assert call_line(name, arguments) == line


def test_a_result_in_one_line():
    assert result_line("bash", "exit code 0\nout", is_error=False) == "exit code 0"
    assert result_line("search", "a:1: x\n1 match in 1 file\n", is_error=False).startswith(
        "1 match"
    )
    assert result_line("search", "Error: no\nsecond", is_error=True) == "Error: no"
    assert result_line("bash", "", is_error=False) == "no output"


def test_what_a_person_calls_a_failure():
    assert went_wrong("read", "Error: x", is_error=True)
    assert went_wrong("bash", "exit code 1\n", is_error=False)
    assert went_wrong("bash", "timed out after 1 s", is_error=False)
    assert not went_wrong("bash", "exit code 0, no output", is_error=False)
    assert not went_wrong("read", "exit code 1", is_error=False)


def test_a_diff_keeps_its_line_numbers():
    assert diff_lines(DIFF) == [
        DiffLine(" ", "import os", 1),
        DiffLine("-", "a = 1", 2),
        DiffLine("+", "a = 2", 2),
        DiffLine("+", "b = 3", 3),
        DiffLine(" ", "end", 4),
        DiffLine("@", "⋯"),
        DiffLine("-", "last", 40),
        DiffLine(" ", "line", 41),
        DiffLine("@", "\\ No newline at end of file"),
    ]


def test_a_diff_whose_lines_look_like_a_header():
    lines = diff_lines("--- a\n+++ b\n@@ -1 +1 @@\n--- x\n+++ y\n")
    assert lines == [DiffLine("-", "-- x", 1), DiffLine("+", "++ y", 1)]


def test_a_change_is_known_while_it_is_written():
    assert written_lines("edit", {"path": "x", "old": "a\nb"}) == [
        DiffLine("-", "a"),
        DiffLine("-", "b"),
    ]
    assert written_lines("write", {"content": "a\n"}) == [DiffLine("+", "a")]
    assert written_lines("bash", {"command": "x"}) == []


def test_arguments_are_shown_to_the_last_character():
    assert arguments_text("bash", {"command": "rm\r\n\u202ex"}) == "rm␍\n\\u202ex"
    assert arguments_text("f", {"a": "one", "n": 3}) == "a: one\nn: 3"
    assert arguments_text("f", {"a": "one\ntwo"}) == "a:\none\ntwo"
    assert hides_something({"a": "\u200b", "n": 3})
    assert not hides_something({"a": "plain\r\n", "n": 3})


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (8210, "8.2k"),
        (256_000, "256k"),
        (1_048_576, "1.0M"),
    ],
)
def test_counts(number, text):
    assert count(number) == text


HELP = "Tab  walk it\n/why-slow  what was computed and why\nno columns here, however long it is"


def test_words_stay_in_their_column_where_a_line_is_longer_than_the_screen():
    assert hung(HELP, 30) == (
        "Tab  walk it\n/why-slow  what was computed\n           and why\n"
        "no columns here, however long it is"
    )
    assert hung(HELP, 18).splitlines()[1:4] == ["/why-slow", "    what was", "    computed and"]
    assert hung(HELP, 200) == HELP


def test_small_words():
    assert [seconds(0.42), seconds(12), seconds(185)] == ["0.4s", "12s", "3m 05s"]
    assert bar(5, 10, 4) == "▰▰▱▱"
    assert bar(0, 0, 2) == "▰▰"
    assert [plural(1, "line"), plural(2000, "line")] == ["1 line", "2,000 lines"]
