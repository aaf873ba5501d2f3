"""What a session's log is certain to hold when its process or the whole machine dies.

The prompt is on the disk itself before the model starts, a call before it runs, its result before
the model goes on, the answer before the turn is said to have ended.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.sessions.lines import read_lines

Make = Callable[..., Any]


class Disk:
    """What outlives a power cut: of each file its length when it was synced last, and whether its
    name was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths: dict[tuple[int, int], int] = {}
        self.directories: set[tuple[int, int]] = set()
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            about = os.fstat(descriptor)
            key = (about.st_dev, about.st_ino)
            self.lengths[key] = about.st_size
            if os.path.isdir(f"/dev/fd/{descriptor}"):
                self.directories.add(key)

        monkeypatch.setattr(os, "fsync", fsync)

    def lines(self, path: Path) -> list[dict[str, Any]]:
        """The records of a log that a power cut would leave now."""
        about, above = path.stat(), path.parent.stat()
        assert (above.st_dev, above.st_ino) in self.directories, (
            "the name of the file is not synced"
        )
        length = self.lengths.get((about.st_dev, about.st_ino), 0)
        return [json.loads(line) for line in path.read_bytes()[:length].splitlines()]


def said(records: list[dict[str, Any]], kind: str) -> list[str]:
    """What prompts, answers, calls or results of a log say."""
    if kind == "prompt":
        return [record["text"] for record in records if record["type"] == "prompt"]
    key = {"text": "text", "tool_use": "name", "tool_result": "content"}[kind]
    messages = [r["message"] for r in records if r["type"] in ("assistant", "user")]
    return [b[key] for message in messages for b in message["content"] if b["type"] == kind]


@pytest.mark.skipif(sys.platform == "darwin", reason="there, files are synced by another call")
def test_a_power_cut_loses_nothing_that_was_acted_on(
    make_agent: Make,
    play: SimpleNamespace,
    home: Path,
    repo: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = Disk(monkeypatch)
    steps = (play.call("bash", command="echo one"), play.call("list"), play.say("All done."))
    agent = make_agent(*steps)
    seen: list[str] = []
    names = ["bash", "list"]
    for event in agent.run("the prompt"):
        (log,) = home.glob("data/sessions/*/events.jsonl")
        records = disk.lines(log)
        if isinstance(event, ev.StepStarted):  # the model has not begun
            assert said(records, "prompt") == ["the prompt"]
            assert len(said(records, "tool_result")) == event.step - 1
        elif isinstance(event, ev.StepFinished) and names:  # the call has not run
            seen.append(names.pop(0))
            assert said(records, "tool_use") == seen
            assert len(said(records, "tool_result")) == len(seen) - 1
        elif isinstance(event, ev.CallFinished):
            assert said(records, "tool_result")[-1] == event.content
        elif isinstance(event, ev.TurnEnded):
            assert said(records, "text") == ["All done."]
    assert seen == ["bash", "list"]


def started(repo: Path, home: Path, model: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "ds4_agent.agent.cli", "-C", str(repo), "--model", model]
    command += ["--permission-mode", "auto", "-p", "the prompt"]
    pipe = subprocess.DEVNULL
    environment = {**os.environ, "DS4_HOME": str(home)}
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def wait_for(what: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while not what():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < until
        time.sleep(0.02)


def test_killed_while_a_tool_runs_the_log_holds_all_up_to_its_call(
    script: Callable[..., str], play: SimpleNamespace, home: Path, repo: Path
) -> None:
    model = script(
        play.call("bash", command="echo one"),
        play.call("bash", command="touch runs; sleep 600"),
        play.say("never"),
    )
    process = started(repo, home, model)
    try:
        wait_for((repo / "runs").exists, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (session,) = home.glob("data/sessions/*")
    log = read_lines(session / "events.jsonl")
    assert log.damaged == 0
    assert said(list(log.records), "prompt") == ["the prompt"]
    assert said(list(log.records), "tool_use") == ["bash", "bash"]
    (result,) = said(list(log.records), "tool_result")
    assert "one" in result.splitlines()
    tokens = read_lines(session / "tokens.jsonl")
    assert tokens.damaged == 0
    written = [record for record in tokens.records if record["kind"] in ("sampled", "forced")]
    assert written[-1] == tokens.records[-1]  # the call's own ids


def test_killed_before_the_model_says_a_word_the_prompt_is_in_the_log(
    script: Callable[..., str], play: SimpleNamespace, home: Path, repo: Path
) -> None:
    process = started(repo, home, script(play.say("never", delay_ms=600_000)))

    def is_begun() -> bool:  # its own ids are the last thing before the model's first
        return any(
            b'"control"' in p.read_bytes() for p in home.glob("data/sessions/*/tokens.jsonl")
        )

    try:
        wait_for(is_begun, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (session,) = home.glob("data/sessions/*")
    log = read_lines(session / "events.jsonl")
    assert said(list(log.records), "prompt") == ["the prompt"]
    assert said(list(log.records), "text") == []
