"""A call is shown at every moment of its life, and folded when it is over."""

import asyncio

import pytest
from textual.app import App

from ds4_agent.tui.tool import DIFF_LINES, TAIL_LINES, ToolMessage

DIFF = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n keep\n-old\n+new\n"


def life(name, *moments, is_open=False):
    """What is shown after each moment, a function of the message."""
    message = ToolMessage(name, is_open=is_open)

    class Page(App[None]):
        def compose(self):
            yield message

    async def play() -> list[str]:
        shown = []
        async with Page().run_test():
            for moment in moments:
                moment(message)
                lines = str(message.visual).split("\n")
                shown.append("\n".join(line.rstrip() for line in lines))
        return shown

    return asyncio.run(play())


def test_an_edit_grows_then_runs_then_shows_its_diff():
    arguments = {"path": "x", "old": "old", "new": "new"}
    shown = life(
        "edit",
        lambda m: m.argument("path", "x"),
        lambda m: m.argument("old", "ol"),
        lambda m: m.argument("new", "new\nmo"),
        lambda m: m.ready(arguments),
        lambda m: m.asking(True),
        lambda m: m.finish("Edited x: 1 replacement, line 2", is_error=False, diff=DIFF, ran=True),
    )
    assert shown == [
        "○ edit x▌",
        "○ edit x▌\n    - ol",
        "○ edit x▌\n    - ol\n    + new\n    + mo",
        "◐ edit x\n    - old\n    + new",
        "◐ edit x",
        "● edit x\n  └ Edited x: 1 replacement, line 2\n    1   keep\n    2 - old\n    2 + new",
    ]


def test_a_command_shows_its_tail():
    output = "".join(f"line {number}\n" for number in range(20))
    shown = life(
        "bash",
        lambda m: m.argument("command", "make"),
        lambda m: m.output(output),
        lambda m: m.finish("exit code 0\n" + output, is_error=False, diff="", ran=True),
    )
    tail = "\n".join(f"    line {number}" for number in range(20 - TAIL_LINES, 20))
    assert shown[0] == "○ $ make▌"
    assert shown[1] == f"◐ $ make\n    … 15 more lines (ctrl+o)\n{tail}"
    assert shown[2] == f"● $ make\n  └ exit code 0\n    … 15 more lines (ctrl+o)\n{tail}"


def test_a_read_is_one_line_until_it_is_opened():
    def finish(message):
        message.finish("x, lines 1-2 of 2\na\nb\n", is_error=False, diff="", ran=True)

    folded, opened = life("read", finish, lambda m: m.toggle(True))
    assert folded == "● read\n  └ x, lines 1-2 of 2"
    assert opened == folded + "\n    a\n    b"


@pytest.mark.parametrize(("ran", "style"), [(True, "$text-error"), (False, "$text-warning")])
def test_an_error_and_a_refusal_stand_out(ran, style):
    message = ToolMessage("bash")
    message.finish("Error: no", is_error=True, diff="", ran=ran)
    assert any(span.style == style for span in message.visual.spans)


def test_a_long_change_is_cut_where_it_grows_and_says_so():
    content = "\n".join(f"line {number}" for number in range(100))
    writing, done = life(
        "write",
        lambda m: m.argument("content", content),
        lambda m: m.ready({"path": "x", "content": content}),
    )
    assert writing.endswith("+ line 99")
    assert f"… {100 - DIFF_LINES} more lines" in writing
    assert done.endswith(f"… {100 - DIFF_LINES} more lines (ctrl+o)")
