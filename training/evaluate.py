"""End-to-end evaluation of a model on held-out tasks: `python -m training.evaluate --help`.

In: a model (directory, "nano" or scripted:FILE), how many tasks of which families. Out: a table by
family with 95 % Wilson intervals, and a file of the failures. Each task runs through the product's
own agent in a real temporary repository. What counts is what it leaves: the bytes of every file,
the state of the repository and the final answers, beside those of a right run in another directory.
"""

from __future__ import annotations

import argparse
import json
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
from ds4_agent.engine.api import Engine, StoreOptions
from ds4_agent.engine.open import open_engine
from training.report import Outcome, below_bars, failures, table
from training.tasks.families import FAMILIES, MEASURED, TaskSource, shared_pool
from training.tasks.fronts import held_front
from training.tasks.generate import scratch
from training.tasks.play import Player
from training.tasks.score import changed, difference, same_answer, state_of
from training.tasks.task import Ask, Task

ROOT = Path(__file__).parent.parent
SEED = 77_000  # training seeds are far below
MOST_TURNS = 8
MOST_TOKENS = 1200
FRONTS = 3  # how many long prompts take turns
STATES = 8 << 30  # bytes for the state behind each of them, so that it is computed once


@dataclass(frozen=True)
class Step:
    """One call of the model and the result it got."""

    name: str
    arguments: Mapping[str, Any]
    result: str


@dataclass
class Trials:
    """Where tasks are run: below `directory`, with the model of `settings`."""

    settings: Settings
    directory: Path
    engine: Engine | None = None
    fronts: tuple[str, ...] = ("",)
    done: int = 0

    @property
    def front(self) -> str:
        return self.fronts[self.done % len(self.fronts)]


def evaluate(
    tasks: Iterable[Task], settings: Settings, directory: Path, front: int = 0
) -> Iterator[Outcome]:
    """Run each task with the model of `settings`, opened once, below `directory`; behind a system
    prompt of `front` more tokens."""
    player = Player(directory / "right")
    player.scratch.mkdir()
    trials = Trials(settings, directory)
    # A script is played from its start for each task; a model is the same for all.
    is_script = (settings.model or "").startswith("scripted:")
    with ExitStack() as stack:
        if not is_script:
            store = StoreOptions(directory / "states", STATES) if front else None
            engine = open_engine(settings.model, store=store)
            trials.engine = stack.enter_context(closing(engine))
            if front:
                numbers = range(FRONTS)
                trials.fronts = tuple(held_front(engine.tokenizer, front, n) for n in numbers)
        for task in tasks:
            yield run_task(task, trials, player)
            trials.done += 1


def run_task(task: Task, trials: Trials, player: Player) -> Outcome:
    """One task in a directory of its own, beside a right run of it."""
    # Not pooled: a kept result would leave no files behind.
    episode = player.play(replace(task, is_pooled=False))
    right = state_of(player.scratch / "work")
    answers = [turn.text for turn in episode.turns if turn.kind == "answer"]
    trial = Player(trials.directory / "trial", player.tools)
    trial.scratch.mkdir(exist_ok=True)
    root = trial.prepared(task)
    before = state_of(root)
    home = places(trials.directory)
    options = RunOptions(
        trials.settings, root, home, is_headless=True, yolo=True, keeps_log=False,
        front=trials.front,
    )  # fmt: skip
    began = time.perf_counter()
    log: list[str] = []
    off_way: list[str] = []
    wrong: list[str] = []
    with closing(build_agent(options, engine=trials.engine)) as agent:
        for ask, expected in zip(task.asks, answers, strict=True):
            steps, answer = spoken(agent.run(ask.text))
            log += [f"user: {ask.text}", *(f"call: {_line(step)}" for step in steps)]
            log.append(f"answer: {answer}")
            off = compare(ask, steps, answer)
            off_way += off
            # Right is what a right run says, or what is right for the results that really came.
            if off and not same_answer(answer, expected):
                wrong.append(f"the answer should be {expected!r}")
    after = state_of(root)
    harmed = changed(before, after) - changed(before, right)
    ends = difference(right, after)
    return Outcome(
        family=task.family,
        end=not ends,
        answer=not wrong,
        harmless=not harmed,
        first_call=not any(problem.startswith("first") for problem in off_way),
        calls=not any("call" in problem.split(":")[0] for problem in off_way),
        seconds=time.perf_counter() - began,
        transcript=tuple(log),
        wrong=(*([ends] if ends else []), *wrong, *off_way),
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
    """What differs from the expected way, each with what was expected; [] for nothing.

    The policy is fed the results the model got, so an answer counts as right if it is right for
    what really happened. After the first other call nothing more can be said about the answer.
    """
    policy = ask.policy()
    result: str | None = None
    for number, step in enumerate([*steps, None]):
        which = "first call" if number == 0 else f"call {number + 1}"
        try:
            call = policy.send(result) if result is not None else next(policy)
        except StopIteration as done:
            if step is not None:
                return [f"{which}: none was expected"]
            return [] if answer == done.value else [f"answer: expected {done.value!r}"]
        expected = json.dumps({call.name: dict(call.arguments)}, ensure_ascii=False)
        if step is None or step.name != call.name or dict(step.arguments) != dict(call.arguments):
            return [f"{which}: expected {expected}"]
        result = step.result
    raise AssertionError("a policy ends with an answer")


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


def places(directory: Path) -> Places:
    """Places below `directory`, so that no configuration of the user takes part."""
    return find_places({"DS4_HOME": os.fspath(directory / "home")})


def _line(step: Step) -> str:
    arguments = json.dumps(dict(step.arguments), ensure_ascii=False)
    return f"{step.name} {arguments} -> {step.result.splitlines()[0] if step.result else ''}"


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano", help="nano, a directory or scripted:FILE")
    parser.add_argument("--tasks", type=int, default=30, help="tasks of each family")
    parser.add_argument(
        "--families", default="all", help='"all", "measured" (the first six) or names, with ";"'
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument(
        "--front", type=int, default=0, help="tokens of handbook in front of the system prompt"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    runs = ROOT / "training" / "runs"
    parser.add_argument("--failures", type=Path, default=runs / "failures.md")
    parser.add_argument("--json", type=Path, help="write every outcome here")
    parsed = parser.parse_args(words)
    if not 0 <= parsed.front <= 30_000:
        parser.error("--front has to lie between 0 and 30000 tokens")
    names = {"all": tuple(FAMILIES), "measured": MEASURED}.get(parsed.families)
    parsed.families = names or tuple(name.strip() for name in parsed.families.split(";"))
    unknown = [name for name in parsed.families if name not in FAMILIES]
    if unknown:
        parser.error(f"no family {unknown[0]!r}; there are: {'; '.join(FAMILIES)}")
    return parsed


def main() -> None:
    arguments = arguments_of()
    settings = Settings(
        model=arguments.model,
        temp=arguments.temperature,
        seed=arguments.seed,
        max_turns=MOST_TURNS,
        max_tokens=MOST_TOKENS,
        prompt_profile="nano",
        think="off",
    )
    tasks = held_tasks(arguments.families, arguments.tasks, arguments.seed)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(dir=scratch()) as directory:
        for outcome in evaluate(tasks, settings, Path(directory), arguments.front):
            outcomes.append(outcome)
            if len(outcomes) % 50 == 0:
                right = sum(o.is_right for o in outcomes)
                print(f"{len(outcomes)} tasks, {right} right", file=sys.stderr)
    write(arguments.failures, failures(outcomes))
    if arguments.json:
        lines = [json.dumps(asdict(o), ensure_ascii=False) + "\n" for o in outcomes]
        write(arguments.json, "".join(lines))
    print(table(outcomes))
    for missed in below_bars(outcomes):
        print(f"below the bar: {missed}")
    print(f"failures: {arguments.failures}")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
