"""The real agent on a scripted model in a real repository, on a screen without a terminal; and the
real command on a real pseudo-terminal."""

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.pilot import Pilot

from ds4_agent.agent.build import Asks, RunOptions
from ds4_agent.agent.choose import Choice
from ds4_agent.agent.config import Settings
from ds4_agent.agent.places import find_places
from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.segments import spell
from ds4_agent.tui.answer import AnswerPart
from ds4_agent.tui.approval import GRACE, ApprovalPanel
from ds4_agent.tui.screen import AgentApp
from ds4_agent.tui.session import about, builder
from ds4_agent.tui.status import StatusLine

Story = Callable[[AgentApp, Pilot[None]], Awaitable[None]]
COMMAND = ("-m", "ds4_agent.agent.cli")
ALT_SCREEN, MAIN_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
ON_OFF = ((b"\x1b[?1000h", b"\x1b[?1000l"), (b"\x1b[?2004h", b"\x1b[?2004l"))
PATIENCE = 300.0  # seconds a wished-for screen may take on a busy machine


def call(name: str, /, text: str = "", **arguments: Any) -> dict[str, Any]:
    """A scripted step that makes one call."""
    return {"text": text + spell(call_segments([ParsedCall(name, arguments)]))}


def say(text: str, **extra: Any) -> dict[str, Any]:
    """A scripted step that answers."""
    return {"text": text, **extra}


def screen_text(app: AgentApp) -> str:
    """What a reader sees, line by line."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Wait for something on the screen."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, screen_text(pilot.app)
        await pilot.pause(0.02)


async def idle(pilot: Pilot[None]) -> None:
    """Wait until the model is loaded and no turn is under way."""
    await pilot.pause()
    await until(pilot, lambda: not pilot.app.query_one(StatusLine).status.busy)
    await pilot.pause()


async def asked(pilot: Pilot[None], clock: SimpleNamespace) -> ApprovalPanel:
    """Wait for a question and let its grace pass."""
    await until(pilot, lambda: pilot.app.query(ApprovalPanel))
    await pilot.pause()
    clock.now += GRACE + 0.1
    return pilot.app.query_one(ApprovalPanel)


def answers(app: AgentApp) -> str:
    """The Markdown source of every answer."""
    return "\n".join(part.source for part in app.query(AnswerPart))


@pytest.fixture
def stage() -> SimpleNamespace:
    """The vocabulary of a story. (Test files cannot import this one.)"""
    return SimpleNamespace(
        call=call, say=say, text=screen_text, until=until, idle=idle, asked=asked, answers=answers
    )


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "src").mkdir(parents=True)
    (root / "src/client.py").write_text("import os\n\nretries = 3\n")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    return root


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Write a script; returns what `--model` takes."""

    def write(*steps: dict[str, Any]) -> str:
        path = tmp_path / "script.jsonl"
        path.write_text("".join(json.dumps(step) + "\n" for step in steps))
        return f"scripted:{path}"

    return write


@pytest.fixture
def options(tmp_path: Path, repo: Path, script: Callable[..., str]) -> Callable[..., RunOptions]:
    """Options of a run with these scripted steps."""

    def make(*steps: dict[str, Any], **settings: Any) -> RunOptions:
        places = find_places({"DS4_HOME": str(tmp_path / "home")})
        return RunOptions(Settings(model=script(*steps), **settings), repo, places)

    return make


@pytest.fixture
def clock() -> SimpleNamespace:
    """The app's clock, which stands still until a test moves it: `clock.now += 1`."""
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def perform(options: Callable[..., RunOptions], clock: SimpleNamespace) -> Callable[..., AgentApp]:
    """Act a story on the app with a scripted model; the story begins once the model is loaded, or
    at once with a prompt or with `prompt=None`."""

    def act(
        story: Story,
        *steps: dict[str, Any],
        prompt: str | None = "",
        size: tuple[int, int] = (80, 24),
        resumes: Choice | None = None,
        asks_for: Asks = "",
        **settings: Any,
    ) -> AgentApp:
        chosen = replace(options(*steps, **settings), resumes=resumes, asks_for=asks_for)
        first = prompt or ""
        app = AgentApp(builder(chosen), about(chosen), first, clock=lambda: clock.now)

        async def play() -> None:
            async with app.run_test(size=size) as pilot:
                if prompt == "":
                    await idle(pilot)
                await story(app, pilot)

        try:
            asyncio.run(play())
        finally:
            app.conversation.close()
        return app

    return act


@dataclass
class Terminal:
    """A command on a terminal of its own."""

    process: subprocess.Popen[bytes]
    master: int
    before: list[object]
    received: bytearray = field(default_factory=bytearray)

    def wait_for(self, text: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.received:
            assert time.monotonic() < deadline, bytes(self.received[-2000:])
            assert self.read() or self.process.poll() is None, bytes(self.received[-2000:])

    def wait_for_prompt(self, after: bytes, mark: bytes) -> None:
        """Wait for `after` and for the next prompt: what is typed before it may be lost."""
        self.wait_for(after)
        del self.received[: self.received.rindex(after)]
        self.wait_for(mark)

    def read(self, seconds: float = 0.05) -> bool:
        """Take what is there; whether anything was."""
        if self.master < 0 or not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self.master, 1 << 16)
        except OSError:
            return False
        self.received += piece
        return bool(piece)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        """The exit code; fails if the process does not end by itself."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            if self.master >= 0:
                self.read()
            else:
                time.sleep(0.05)
        while self.read():
            pass
        return self.process.returncode

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1

    def is_restored(self) -> bool:
        """Whether modes that were switched on are off again, and the settings are the old ones."""
        text = bytes(self.received)
        for on, off in ((ALT_SCREEN, MAIN_SCREEN), *ON_OFF):
            if text.rfind(on) > text.rfind(off):
                return False
        return termios.tcgetattr(self.master) == self.before


@pytest.fixture
def start(repo: Path, tmp_path: Path, script, stage) -> Iterator[Callable[..., Terminal]]:
    """Start ds4-agent with arguments in the repository, on a scripted model that says Hello."""
    terminals: list[Terminal] = []
    model = script(stage.say("Hello from the model."), stage.say("word " * 3000, delay_ms=5))

    def run(
        *arguments: str, model: str = model, program: Sequence[str] = COMMAND, **environment: str
    ) -> Terminal:
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        before = termios.tcgetattr(slave)
        names = ("PATH", "HOME", "PYTHONPATH")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        process = subprocess.Popen(
            [sys.executable, *program, "--model", model, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=repo,
            start_new_session=True,
            env={
                **kept,
                "TERM": "xterm-256color",
                "DS4_HOME": str(tmp_path / "home"),
                "PYTHONUTF8": "1",
                **environment,
            },
        )
        os.close(slave)
        terminals.append(Terminal(process, master, before))
        return terminals[-1]

    yield run
    for terminal in terminals:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
        if terminal.master >= 0:
            terminal.hang_up()
