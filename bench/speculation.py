"""Measures speculation on edits by the bundled model: real tasks in scratch repositories, each done
without guesses, with all of them and with those that pay. `python -m bench.speculation` prints one
JSON list of table rows; tokens that differ end the measurement.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.agent.build import RunOptions, build_agent
from ds4_agent.agent.config import Settings
from ds4_agent.agent.events import TurnEnded, Usage
from ds4_agent.agent.places import Places
from ds4_agent.engine.api import Engine
from ds4_agent.engine.open import open_engine
from ds4_agent.engine.speculative.pace import Mode

ROUNDS = 5  # over all tasks, the ways in turn; the fastest time of each counts
LONG = "messages that could not be delivered are kept for a week and tried again every hour"
SHORT = "messages that could not be delivered are kept for a day and tried again every hour"
MODES: tuple[Mode, ...] = ("off", "auto", "on")


@dataclass(frozen=True)
class Task:
    """A request, and files that are there before it."""

    name: str
    prompt: str
    files: dict[str, str]


TASKS = (
    Task(
        "a long line replaced",
        f'replace "{LONG}" with "{SHORT}" in queue.md',
        {"queue.md": f"# Queue\n\n{LONG}\nsee retry.py\n"},
    ),
    Task("a file with given content", f'create notes.txt with "{LONG}"', {"queue.md": "# Queue\n"}),
    Task(
        "a word replaced",
        'replace "retry_limit = 3" with "retry_limit = 5" in retry.py',
        {"retry.py": "import time\n\nretry_limit = 3\n"},
    ),
)


@dataclass(frozen=True)
class Turn:
    """One task done once."""

    usage: Usage
    seconds: float
    trace: bytes  # every id

    @property
    def tokens_a_pass(self) -> float:
        """Drawn from a model's logits, for each pass they came of."""
        drawn = self.usage.output_tokens - self.usage.forced_tokens
        return drawn / (drawn - self.usage.accepted_tokens)


def main() -> None:
    with ExitStack() as stack:
        engines = {
            mode: stack.enter_context(closing(open_engine("nano", speculate=mode)))
            for mode in MODES
        }
        rows = [row for task in TASKS for row in compared(task, engines)]
        print(engines["auto"].speculation, file=sys.stderr)
    print(json.dumps(rows))


def compared(task: Task, engines: Mapping[Mode, Engine]) -> list[list[str]]:
    """Rows of one task: with the guesses that pay, and with all of them, beside none."""
    turns: dict[Mode, list[Turn]] = {mode: [] for mode in MODES}
    for _ in range(ROUNDS):
        for mode in MODES:
            with tempfile.TemporaryDirectory(prefix="ds4-bench-") as place:
                turns[mode].append(_turn(task, engines[mode], Path(place)))
    if len({turn.trace for own in turns.values() for turn in own}) != 1:
        raise SystemExit(f"bench: with guesses other tokens came: {task.name}")
    best = {mode: min(turn.seconds for turn in turns[mode]) for mode in MODES}
    last = {mode: turns[mode][-1] for mode in MODES}
    rows = []
    for mode, label in (("auto", "guessed where it pays"), ("on", "guessed always")):
        name = f"{task.name}, {label}" if mode == "auto" else f"… {label}"
        rows += [
            [f"{name}: s, same tokens", f"{best[mode]:.2f}", f"{best['off']:.2f}",
             f"{best['off'] / best[mode]:.2f} x", "", ""],
            ["… tokens a pass", f"{last[mode].tokens_a_pass:.2f}", "1.00", "", "", ""],
        ]  # fmt: skip
    return rows


def _turn(task: Task, engine: Engine, place: Path) -> Turn:
    repository, trace = place / "repository", place / "trace.jsonl"
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    for name, text in task.files.items():
        (repository / name).write_text(text, encoding="utf-8")
    home = Places(*(place / name for name in ("config", "data", "cache", "state")))
    options = RunOptions(
        Settings(), repository, home, is_headless=True, yolo=True, keeps_log=False,
        keeps_states=False, trace_tokens=trace,
    )  # fmt: skip
    with closing(build_agent(options, engine=engine)) as agent:
        began = time.perf_counter()
        ended = [event for event in agent.run(task.prompt) if isinstance(event, TurnEnded)][-1]
        seconds = time.perf_counter() - began
    return Turn(ended.usage, seconds, trace.read_bytes())


if __name__ == "__main__":
    main()
