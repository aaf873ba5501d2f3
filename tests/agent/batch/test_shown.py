"""What a batch shows to people: the table at its end, the bar meanwhile."""

import os
import pty
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Batch = Callable[..., SimpleNamespace]
Work = Callable[..., list[dict[str, Any]]]
PROMPT = ("-p", "make n two")


def test_the_table_has_a_row_an_item(batch: Batch, work: Work, play: Any, tree: Path) -> None:
    steps = [*work("src/a.py"), {"text": "cut", "finish": "length"}, play.say("It is right.")]
    done = batch(steps, "src/[a-c].py", *PROMPT)
    assert done.code == 5
    head, *rows = done.out.splitlines()[:4]
    assert head.split() == ["state", "file", "lines", "tries", "tokens", "seconds"]
    assert [row.split()[:2] for row in rows] == [
        ["changed", "src/a.py"],
        ["failed", "src/b.py"],
        ["unchanged", "src/c.py"],
    ]
    assert rows[0].split()[2:4] == ["+1", "-1"]
    assert "--max-tokens" in rows[1]
    assert rows[2].endswith("It is right.")
    assert "3 items: 1 changed, 1 unchanged, 1 failed" in done.out


def test_a_terminal_shows_a_bar_with_the_time_that_is_left(
    start: Callable[..., Any], work: Work, tree: Path
) -> None:
    master, slave = pty.openpty()
    steps = [*work("src/a.py"), {"text": "cut", "finish": "length"}, *work("src/c.py")]
    process = start(steps, "src/[a-c].py", *PROMPT, stderr=slave)
    os.close(slave)
    shown = b""
    with suppress(OSError):  # the other end is closed
        while data := os.read(master, 65536):
            shown += data
    os.close(master)
    assert process.wait() == 5
    text = shown.decode()
    assert re.search(r"\[#{8}\.{16}\] 1/3 ETA \d.* src/b.py", text)
    assert re.search(r"\[#{16}\.{8}\] 2/3 ETA \d.* 1 failed src/c.py", text)
    assert "[2/3] failed src/b.py" in text
    assert text.endswith("\r\x1b[K"), "the bar is left"
