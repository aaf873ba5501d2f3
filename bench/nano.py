"""Measures the bundled nano model on this machine: prefill and decode in a loaded engine, then the
command itself from its start, in a scratch git repository. `python -m bench.nano` prints one JSON
list of [figure, value]. Starts the installed `ds4-agent` with a DS4_HOME of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.figures import prompt_ids
from ds4_agent.engine.api import GrammarState, Sampling
from ds4_agent.engine.dsml.constraints import Constraint, Free
from ds4_agent.engine.open import open_engine

PROMPT = 1024  # tokens; a nano turn with a tool result or two
DECODED = 256
STARTS = 3  # of the command; the median counts, so the first, with cold files, does not


class Endless(GrammarState):
    """Anything but the end of the turn, so that as many tokens are decoded as were asked for."""

    def __init__(self, eos: int) -> None:
        self._constraint = Free(frozenset({eos}))

    def constraint(self) -> Constraint:
        return self._constraint

    def copy(self) -> GrammarState:
        return self

    def accept(self, token_id: int) -> None:
        """Every id leads to the same place."""


def speeds() -> list[tuple[str, str]]:
    """Loading, prefill and decode in this process."""
    began = time.perf_counter()
    engine = open_engine("nano")
    loaded = time.perf_counter() - began
    endless = Endless(engine.tokenizer.control("<｜end▁of▁sentence｜>"))
    greedy = Sampling(temperature=0.0)
    try:
        prefills, decodes = [], []
        for _ in range(STARTS):
            context = engine.new_context()
            began = time.perf_counter()
            context.extend(prompt_ids(PROMPT))
            prefills.append(PROMPT / (time.perf_counter() - began))
            times = [
                time.perf_counter()
                for _ in context.sample(sampling=greedy, grammar=endless, max_tokens=DECODED)
            ]
            decodes.append((DECODED - 1) / (times[-1] - times[0]))
    finally:
        engine.close()
    return [
        ("nano: load the model, s", f"{loaded:.2f}"),
        (f"nano: prefill at {PROMPT:,}, tokens/s", f"{median(prefills):,.0f}"),
        (f"nano: decode after {PROMPT:,}, tokens/s", f"{median(decodes):,.0f}"),
    ]


def starts() -> list[tuple[str, str]]:
    """The command from outside: to the first token and to the end of a turn with one call."""
    with tempfile.TemporaryDirectory(prefix="ds4-bench-") as place:
        repository = Path(place) / "repository"
        subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
        (repository / "notes.txt").write_text("one\n", encoding="utf-8")
        runs = [_start(repository, Path(place) / "home") for _ in range(STARTS)]
    first, whole = (median(column) for column in zip(*runs, strict=True))
    return [
        ("nano: command start to first token, s", f"{first:.2f}"),
        ("nano: command start to end of `git status`, s", f"{whole:.2f}"),
    ]


def _start(repository: Path, home: Path) -> tuple[float, float]:
    """Seconds from starting the command to the first step's last prefill line (the first token is
    drawn from the logits it ends with), and to the result."""
    command = [
        str(Path(sys.executable).with_name("ds4-agent")),
        *("--print", "git status", "--output-format", "stream-json", "--yolo"),
    ]
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=repository,
        env={**os.environ, "DS4_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        first = 0.0
        for line in process.stdout or ():
            event = json.loads(line)
            is_ready = event.get("event") == "prefill" and event["done"] == event["total"]
            if is_ready and not first:
                first = time.perf_counter() - began
    whole = time.perf_counter() - began
    if process.returncode != 0 or not first:
        raise SystemExit(f"bench: ds4-agent ended with exit code {process.returncode}")
    return first, whole


if __name__ == "__main__":
    print(json.dumps(speeds() + starts()))
