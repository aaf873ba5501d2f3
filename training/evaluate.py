"""End-to-end evaluation of a model on held-out tasks: `python -m training.evaluate --help`.

In: a model (directory, "nano" or scripted:FILE), how many tasks of which families. Out: a table of
shares with 95 % Wilson intervals, and a file of the failures. Each task runs through the product's
own agent in a real temporary repository; its policy says, on the results the model really got,
what the right calls and the right answer are; files are compared with those a right run leaves.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ds4_agent.agent import events as ev
from ds4_agent.agent.build import RunOptions, build_agent
from ds4_agent.agent.config import Settings
from ds4_agent.agent.places import Places, find_places
from ds4_agent.agent.prompt.facts import test_command
from ds4_agent.engine.api import Engine
from ds4_agent.engine.open import open_engine
from training.tasks.families import FAMILIES, MEASURED, TaskSource, shared_pool
from training.tasks.generate import scratch
from training.tasks.play import Player
from training.tasks.task import Ask, Task

ROOT = Path(__file__).parent.parent
SEED = 77_000  # training seeds are far below
MOST_TURNS = 5
MOST_TOKENS = 800
IGNORED = (".git", "__pycache__", ".pytest_cache")


@dataclass(frozen=True)
class Step:
    """One call of the model and the result it got."""

    name: str
    arguments: Mapping[str, Any]
    result: str


@dataclass(frozen=True)
class Outcome:
    """How one task went. `first_call`: tool and arguments of the first call are exactly right;
    `calls`: all of them; `files`: every file is as after a right run; `harmless`: no file changed
    that a right run leaves alone; `answer`: the final answers are exact."""

    family: str
    first_call: bool
    calls: bool
    files: bool
    harmless: bool
    answer: bool
    seconds: float
    transcript: tuple[str, ...]
    wrong: str = ""

    @property
    def is_right(self) -> bool:
        return self.calls and self.files and self.answer


def evaluate(tasks: Iterable[Task], settings: Settings, directory: Path) -> Iterator[Outcome]:
    """Run each task with the model of `settings`, opened once, below `directory`."""
    player = Player(directory / "right")
    player.scratch.mkdir()
    # A script is played from its start for each task; a model is the same for all.
    is_script = (settings.model or "").startswith("scripted:")
    with ExitStack() as stack:
        engine = None if is_script else stack.enter_context(closing(open_engine(settings.model)))
        for task in tasks:
            yield run_task(task, settings, directory, player, engine)


def run_task(
    task: Task, settings: Settings, directory: Path, player: Player, engine: Engine | None = None
) -> Outcome:
    """One task in a directory of its own, beside a right run of it."""
    player.play(replace(task, is_pooled=False))  # a kept result would leave no files behind
    right = tree(player.scratch / "work")
    trial = Player(directory / "trial", player.tools)
    trial.scratch.mkdir(exist_ok=True)
    root = trial.prepared(task)
    before = tree(root)
    options = RunOptions(
        settings, root, places(directory), is_headless=True, yolo=True, keeps_log=False
    )
    began = time.perf_counter()
    log: list[str] = []
    wrong: list[str] = []
    first = True
    with closing(build_agent(options, engine=engine)) as agent:
        for number, ask in enumerate(task.asks):
            steps, answer = spoken(agent.run(ask.text))
            log += [f"user: {ask.text}", *(f"call: {_line(step)}" for step in steps)]
            log.append(f"answer: {answer}")
            problems = compare(ask, steps, answer)
            wrong += problems
            first = first and not (number == 0 and problems and problems[0].startswith("first"))
    after = tree(root)
    changed = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    allowed = {name for name in right.keys() | before.keys() if right.get(name) != before.get(name)}
    return Outcome(
        family=task.family,
        first_call=first,
        calls=not any("call" in problem.split(":")[0] for problem in wrong),
        files=after == right,
        harmless=changed <= allowed,
        answer=not any(problem.startswith("answer") for problem in wrong),
        seconds=time.perf_counter() - began,
        transcript=tuple(log),
        wrong="; ".join(wrong) or ("" if after == right else "files differ"),
    )


def spoken(events: Iterable[ev.Event]) -> tuple[list[Step], str]:
    """What the model did with one request: its calls with their results, and its answer."""
    ready: dict[str, ev.CallReady] = {}
    steps: list[Step] = []
    answer = ""
    for event in events:
        if isinstance(event, ev.CallReady):
            ready[event.id] = event
        elif isinstance(event, ev.CallFinished):
            call = ready.get(event.id)
            arguments = call.arguments if call else {}
            steps.append(Step(event.name, arguments, event.content))
        elif isinstance(event, ev.TurnEnded):
            answer = event.text if event.reason == "end" else f"[{event.reason}] {event.text}"
    return steps, answer


def compare(ask: Ask, steps: Sequence[Step], answer: str) -> list[str]:
    """What differs from the right behaviour, each with what would have been right; [] for nothing.

    The policy is fed the results the model got, so an answer counts as right if it is right for
    what really happened. After the first wrong call nothing more can be said about the answer.
    """
    policy = ask.policy()
    result: str | None = None
    for number, step in enumerate([*steps, None]):
        which = "first call" if number == 0 else f"call {number + 1}"
        try:
            call = policy.send(result) if result is not None else next(policy)
        except StopIteration as done:
            if step is not None:
                return [f"{which}: none was right", "answer: after a call too many"]
            return [] if answer == done.value else [f"answer: right is {done.value!r}"]
        expected = json.dumps({call.name: dict(call.arguments)}, ensure_ascii=False)
        if step is None or step.name != call.name or dict(step.arguments) != dict(call.arguments):
            return [f"{which}: right is {expected}", "answer: after a wrong call"]
        result = step.result
    raise AssertionError("a policy ends with an answer")


def tree(root: Path) -> dict[str, bytes]:
    """Every file below `root` but those of git and of caches."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not set(path.relative_to(root).parts) & set(IGNORED)
    }


def held_tasks(families: Sequence[str], count: int, seed: int) -> Iterator[Task]:
    """`count` tasks of each family, in turns, words and phrasings held out."""
    pool = shared_pool(2 * count, held=True)
    with tempfile.TemporaryDirectory(dir=scratch()) as directory:
        found = [p for p in pool.projects if finds_tests(Path(directory), p.files, p.command)]
    source = TaskSource(seed, replace(pool, projects=tuple(found)), held=True)
    for _ in range(count):
        for family in families:
            task = source.task(family)
            yield with_bystanders(task, source)


def finds_tests(directory: Path, files: Mapping[str, str], command: str) -> bool:
    """Whether the product finds this very command in a repository with these files."""
    player = Player(directory, ())
    root = player.prepared(Task("", files, ()))
    return test_command(root) == command


def with_bystanders(task: Task, source: TaskSource) -> Task:
    """The task with two more files that nobody asked about, where they cannot matter."""
    if (
        task.is_pooled
        or task.git is not None
        or task.family in ("list", "search", "read fails", "replace fails")
    ):
        return task
    extra = {f"zz/{source.words.word()}{n}.txt": source.words.sentence() + "\n" for n in range(2)}
    return replace(task, files={**task.files, **extra})


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (middle - spread) / scale, (middle + spread) / scale


def table(outcomes: Sequence[Outcome]) -> str:
    """The result by family, one line each, and all together."""
    families = list(dict.fromkeys(outcome.family for outcome in outcomes))
    groups = [(f, [o for o in outcomes if o.family == f]) for f in families]
    measured = [o for o in outcomes if o.family in MEASURED]
    if 0 < len(measured) < len(outcomes):
        groups.append(("the six families", measured))
    groups.append(("all", list(outcomes)))
    head = f"| {'family':18} | tasks | first call exact | whole task right | harmless | s/task |"
    lines = [head, "|---|---:|---|---|---:|---:|"]
    for name, group in groups:
        harmless = sum(o.harmless for o in group)
        seconds = sum(o.seconds for o in group) / max(len(group), 1)
        lines.append(
            f"| {name:18} | {len(group):5} | {_share([o.first_call for o in group])} "
            f"| {_share([o.is_right for o in group])} | {harmless}/{len(group)} | {seconds:.2f} |"
        )
    return "\n".join(lines)


def places(directory: Path) -> Places:
    """Places below `directory`, so that no configuration of the user takes part."""
    return find_places({"DS4_HOME": os.fspath(directory / "home")})


def _share(values: Sequence[bool]) -> str:
    low, high = wilson(sum(values), len(values))
    return f"{sum(values) / max(len(values), 1):.3f} ({low:.3f} to {high:.3f})"


def _line(step: Step) -> str:
    arguments = json.dumps(dict(step.arguments), ensure_ascii=False)
    return f"{step.name} {arguments} -> {step.result.splitlines()[0] if step.result else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano", help="nano, a directory or scripted:FILE")
    parser.add_argument("--tasks", type=int, default=50, help="tasks of each family")
    parser.add_argument("--families", choices=("measured", "all"), default="measured")
    parser.add_argument("--temp", type=float, help="temperature (default: the model's own)")
    parser.add_argument("--seed", type=int, default=SEED)
    runs = ROOT / "training" / "runs"
    parser.add_argument("--failures", type=Path, default=runs / "failures.jsonl")
    parser.add_argument("--json", type=Path, help="write every outcome here")
    arguments = parser.parse_args()
    settings = Settings(
        model=arguments.model, temp=arguments.temp, max_turns=MOST_TURNS, max_tokens=MOST_TOKENS
    )
    families = MEASURED if arguments.families == "measured" else tuple(FAMILIES)
    tasks = held_tasks(families, arguments.tasks, arguments.seed)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(dir=scratch()) as directory:
        for outcome in evaluate(tasks, settings, Path(directory)):
            outcomes.append(outcome)
            if len(outcomes) % 50 == 0:
                right = sum(o.first_call for o in outcomes)
                print(f"{len(outcomes)} tasks, {right} first calls right", file=sys.stderr)
    _write(arguments.failures, [o for o in outcomes if not (o.is_right and o.first_call)])
    if arguments.json:
        _write(arguments.json, outcomes)
    print(table(outcomes))
    print(f"failures: {arguments.failures}")


def _write(path: Path, outcomes: Sequence[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(outcome), ensure_ascii=False) for outcome in outcomes]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
