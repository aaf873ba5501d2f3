"""Makes docs/screen.svg: a picture of a real session, taken by Textual itself.

    python docs/make_screen.py [--model NAME] [--output FILE]

In: a model (default: the bundled one), a scratch repository that is made and removed. Out: the SVG.
The prompts are typed, the model answers them, the one question is approved with a key.
"""

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from ds4_agent.agent.build import RunOptions
from ds4_agent.agent.config import Settings
from ds4_agent.agent.places import find_places
from ds4_agent.tui.approval import GRACE, ApprovalPanel
from ds4_agent.tui.screen import AgentApp
from ds4_agent.tui.session import about, builder
from ds4_agent.tui.status import StatusLine

SIZE = (96, 34)
TIMEOUT = 120.0  # seconds for one answer
PROMPTS = (
    'replace "retries = 3" with "retries = 5" in src/client.py',
    "run the tests",
)
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


async def picture(directory: Path, home: Path, model: str | None) -> str:
    """The session's last screen as SVG. Raises TimeoutError when a turn takes too long."""
    places = find_places({"DS4_HOME": str(home)})
    options = RunOptions(Settings(model=model), directory, places, keeps_log=False)
    facts = replace(about(options), directory="~/shop")
    app = AgentApp(builder(options), facts)
    try:
        async with app.run_test(size=SIZE) as pilot:
            await _turn(app, pilot)
            for prompt in PROMPTS:
                await pilot.press(*prompt, "enter")
                await _turn(app, pilot)
            return app.export_screenshot(title="ds4-agent")
    finally:
        app.conversation.close()


async def _turn(app: AgentApp, pilot: Pilot[None]) -> None:
    """Wait until nothing is under way; allow what is asked."""
    deadline = time.monotonic() + TIMEOUT
    await pilot.pause(0.2)
    while app.query_one(StatusLine).status.busy:
        if time.monotonic() > deadline:
            raise TimeoutError(app.query_one(StatusLine).status.activity)
        await pilot.pause(0.1)
        if app.query(ApprovalPanel):
            await pilot.pause(GRACE + 0.1)
            await pilot.press("1")
    await pilot.pause(0.2)


def without_web_fonts(svg: str) -> str:
    """The picture in the viewer's own monospace font: it must load nothing from a network."""
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "ui-monospace, Menlo, 'DejaVu Sans Mono'")


def main() -> int:
    """Make the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", help="as for ds4-agent (default: the bundled model)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("screen.svg"))
    chosen = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="ds4-screen-"))
    try:
        for name, text in FILES.items():
            path = scratch / "shop" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        svg = asyncio.run(picture(scratch / "shop", scratch / "home", chosen.model))
    finally:
        shutil.rmtree(scratch)
    chosen.output.write_text(without_web_fonts(svg), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
