"""Makes the pictures of the README: a real session, taken by Textual itself.

    python docs/make_screen.py [--model NAME] [--output DIRECTORY]

In: a model (default: the bundled one), a scratch repository that is made and removed. Out:
`question.svg` (an edit is asked about, its diff opened), `screen.svg` (two prompts later),
`sessions.svg` (the session, its copy and the copy's copy, in the light theme). Everything is typed;
only the scratch repository's path, which differs each time, is written as another.
"""

import argparse
import asyncio
import html
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from ds4_agent.agent.build import RunOptions
from ds4_agent.agent.config import Settings
from ds4_agent.agent.places import find_places
from ds4_agent.tui.approval import GRACE, ApprovalPanel
from ds4_agent.tui.picker import Picker
from ds4_agent.tui.screen import AgentApp
from ds4_agent.tui.session import about, builder
from ds4_agent.tui.status import StatusLine

SIZE = (100, 34)
TIMEOUT = 120.0  # seconds for one answer
EDIT = 'replace "retries = 3" with "retries = 5" in src/client.py'
TESTS = "run the tests"
COPIES = ("read test_client.py", "read src/client.py")
FILES = {
    "src/client.py": (
        "import time\n\nretries = 3\n\n\ndef wait(attempt: int) -> None:\n"
        "    time.sleep(2**attempt)\n"
    ),
    "test_client.py": (
        "from src.client import retries\n\n\ndef test_retries():\n    assert retries > 0\n"
    ),
    ".git/HEAD": "ref: refs/heads/main\n",
}


async def pictures(directory: Path, home: Path, model: str | None) -> dict[str, str]:
    """SVGs by their names. Raises TimeoutError when a turn takes too long."""
    places = find_places({"DS4_HOME": str(home)})
    options = RunOptions(Settings(model=model), directory, places)
    facts = replace(about(options), directory="~/shop")
    app = AgentApp(builder(options), facts)
    taken: dict[str, str] = {}
    try:
        async with app.run_test(size=SIZE) as pilot:
            await _idle(app, pilot)
            await pilot.press(*EDIT, "enter")
            await _until(app, pilot, lambda: bool(app.query(ApprovalPanel)))
            await pilot.pause(GRACE + 0.1)
            await pilot.press("d")
            taken["question"] = with_path(await _shot(app, pilot), str(directory), "/home/you/shop")
            await pilot.pause(GRACE + 0.1)
            await pilot.press("1")
            await _idle(app, pilot)
            await pilot.press(*TESTS, "enter")
            await _until(app, pilot, lambda: bool(app.query(ApprovalPanel)))
            await pilot.pause(GRACE + 0.1)
            await pilot.press("1")
            await _idle(app, pilot)
            taken["screen"] = await _shot(app, pilot)
            for prompt in COPIES:
                await pilot.press(*"/fork", "enter")
                await _idle(app, pilot)
                await pilot.press(*prompt, "enter")
                await _idle(app, pilot)
            await pilot.press(*"/theme light", "enter")
            await pilot.press(*"/sessions", "enter")
            await _until(app, pilot, lambda: bool(app.query(Picker)))
            taken["sessions"] = await _shot(app, pilot)
    finally:
        app.conversation.close()
    return taken


async def _shot(app: AgentApp, pilot: Pilot[None]) -> str:
    await pilot.pause(0.3)
    return without_web_fonts(app.export_screenshot(title="ds4-agent"))


async def _idle(app: AgentApp, pilot: Pilot[None]) -> None:
    """Wait until nothing is under way."""
    await pilot.pause(0.3)
    await _until(app, pilot, lambda: not app.query_one(StatusLine).status.busy)
    await pilot.pause(0.3)


async def _until(app: AgentApp, pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(app.query_one(StatusLine).status.activity)
        await pilot.pause(0.1)


def with_path(svg: str, path: str, shown: str) -> str:
    """The picture with another path in it. A text has the width it is drawn in beside it."""

    def other(match: re.Match[str]) -> str:
        before = html.unescape(match[3])
        after = before.replace(path, shown)
        width = float(match[1]) * len(after) / len(before)
        return f'textLength="{width:.1f}"{match[2]}>{match[3].replace(path, shown)}<'

    return re.sub(r'textLength="([\d.]+)"([^>]*)>([^<]+)<', other, svg)


def without_web_fonts(svg: str) -> str:
    """The picture in the viewer's own monospace font: it must load nothing from a network."""
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "ui-monospace, Menlo, 'DejaVu Sans Mono'")


def main() -> int:
    """Make the pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", help="as for ds4-agent (default: the bundled model)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    chosen = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="ds4-screen-"))
    try:
        for name, text in FILES.items():
            path = scratch / "shop" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        taken = asyncio.run(pictures(scratch / "shop", scratch / "home", chosen.model))
    finally:
        shutil.rmtree(scratch)
    for name, svg in taken.items():
        (chosen.output / f"{name}.svg").write_text(svg, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
