"""What the screen looks like, as SVG files beside this one: every colour and every place of a
session at three sizes. Where the look changed on purpose, delete the file, run this again, look at
what it wrote, and commit it."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ds4_agent.tui.input import PromptInput
from ds4_agent.tui.messages import Banner
from ds4_agent.tui.screen import AgentApp
from ds4_agent.tui.session import about, builder
from ds4_agent.tui.status import StatusLine

SNAPSHOTS = Path(__file__).parent / "snapshots"
SIZES = [(80, 24), (120, 36), (40, 15)]
EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}
ANSWER = """Done, with 回 in **bold**:

```python
def wait(attempt: int) -> float:
    return min(60.0, 0.5 * 2**attempt)  # seconds
```

1. `retries` is 5
2. nothing else
"""


def normal(svg: str) -> str:
    """Without Rich's name for the picture, which differs from run to run."""
    return re.sub(r"terminal-\d+", "terminal", svg)


def is_as_kept(name: str, svg: str) -> bool:
    """A picture that is not there yet is written, and its test fails this once."""
    file = SNAPSHOTS / f"{name}.svg"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text(svg, encoding="utf-8")
        return False
    return file.read_text(encoding="utf-8") == svg


@pytest.mark.parametrize("theme", ["ds4-dark", "ds4-light"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_screen_looks_as_it_did(options, stage, clock, size, theme):
    steps = stage.call("edit", **EDIT), stage.say(ANSWER)
    chosen = options(*steps, permission_mode="auto")
    app = AgentApp(builder(chosen), about(chosen), clock=lambda: clock.now)

    async def play() -> str:
        async with app.run_test(size=size) as pilot:
            app.theme = theme
            app.query_one(PromptInput).cursor_blink = False
            await stage.idle(pilot)
            app.query_one(Banner).show("1.0", "nano", "~/shop")  # the scratch directory is no look
            await pilot.press(*"go", "enter")
            await stage.until(pilot, lambda: "nothing else" in stage.answers(app))
            await stage.idle(pilot)
            line = app.query_one(StatusLine)
            line.status = replace(line.status, tokens_per_second=61.0)  # the one measured figure
            await pilot.pause(0.2)
            return normal(app.export_screenshot())

    try:
        svg = asyncio.run(play())
    finally:
        app.conversation.close()
    width, height = size
    assert is_as_kept(f"session-{width}x{height}-{theme}", svg)
