"""`ds4-agent model pull REPO[@REV] [DIR]`: downloads a checkpoint from the Hugging Face hub.

In: its arguments. Out: a complete directory, a line on stdout (JSON with `--json`) and the exit
code; what it finds and how far it is on stderr. Nothing else of ds4-agent uses a network.
"""

from __future__ import annotations

import argparse
import os
import shlex
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.cli import Parser, add_common, options_from
from ds4_agent.agent.display import visible
from ds4_agent.agent.errors import PullError, UsageError
from ds4_agent.agent.hub import open_hub
from ds4_agent.agent.printing import print_json, warn
from ds4_agent.agent.progress import Pace, ProgressLine
from ds4_agent.agent.pull_choice import Choice, choose_files
from ds4_agent.agent.pull_files import (
    Job,
    absent,
    bytes_to_come,
    check_space,
    checked,
    locked,
    pull,
)
from ds4_agent.agent.pulled import Repository
from ds4_agent.agent.sizes import shown_size

if TYPE_CHECKING:
    from ds4_agent.agent.hub import Hub

__all__ = ["run_pull"]

DOWNLOADING = "downloading"


def run_pull(arguments: Sequence[str]) -> int:
    """Run `ds4-agent model pull …`. Raises UsageError, PullError, OutputError, EngineError."""
    parser = Parser(prog="ds4-agent model pull", allow_abbrev=False)
    parser.add_argument("repository", metavar="REPO[@REV]", help="OWNER/NAME on the hub")
    parser.add_argument("directory", nargs="?", metavar="DIR", help="default: among the models")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    add_common(parser)
    chosen = parser.parse_intermixed_args(arguments)
    repository = Repository.parsed(chosen.repository)
    if repository is None:
        raise UsageError(f"{chosen.repository} is not OWNER/NAME or OWNER/NAME@REVISION")
    with closing(open_hub(os.environ)) as hub:
        return _run(hub, repository, chosen)


def _run(hub: Hub, repository: Repository, chosen: argparse.Namespace) -> int:
    options = options_from(chosen, is_headless=True)
    directory = repository.directory(options.places.models)
    if chosen.directory is not None:
        directory = options.directory / Path(chosen.directory).expanduser()
    again = ["ds4-agent", "model", "pull", str(repository)]
    again += [os.fspath(directory)] if chosen.directory is not None else []
    with closing(_Progress()) as progress:
        try:
            job = _job(hub, repository, directory, progress)
            with locked(directory):
                _bring(job, progress)
        except KeyboardInterrupt:
            progress.close()
            warn(f"stopped{progress.kept()}; `{shlex.join(again)}` goes on")
            return 130
        except PullError as error:
            if kept := progress.kept():
                raise PullError(f"{error}; stopped{kept}, `{shlex.join(again)}` goes on") from error
            raise
    _say_complete(job, chosen)
    return 0


def _job(hub: Hub, repository: Repository, directory: Path, progress: _Progress) -> Job:
    """What is to be done, once it is clear that it can be and is of use."""
    from ds4_agent.engine.machine import system_memory

    progress.say(lambda: f"asking for {repository}")
    listing = hub.listing(repository.name, repository.revision)
    choice = choose_files(
        hub,
        listing,
        system_memory(),
        lambda done, total: progress.say(lambda: f"reading headers {done}/{total}"),
    )
    progress.close()
    job = Job(hub, listing, repository, choice.files, directory)
    warn(
        f"{repository} at {listing.commit[:12]}: {len(job.files)} files, {shown_size(job.size)}, "
        f"into {directory}"
    )
    _say_plan(choice)
    check_space(job)
    return job


def _say_plan(choice: Choice) -> None:
    """What it will take in memory, and whether this machine has that."""
    plan = choice.plan
    if plan is None:
        warn(f"in memory: its headers cannot be read; about {shown_size(choice.size)} of weights")
        return
    warn(
        f"in memory: weights {shown_size(plan.weights)}, {plan.context:,} tokens of context "
        f"{shown_size(plan.kv)}, work {shown_size(plan.working)}; this machine can give "
        f"{shown_size(plan.machine.usable)} of {shown_size(plan.machine.memory)}"
    )
    refusal = plan.refusal()
    if refusal is not None:
        warn(f"it cannot run here as it is: {refusal}")


def _bring(job: Job, progress: _Progress) -> None:
    progress.begin("checking", job.size - sum(file.size for file in absent(job)))
    missing = checked(job, progress.read)
    progress.begin(DOWNLOADING, job.size, job.size - bytes_to_come(job, missing))
    pull(job, missing, progress.add, progress.tick)


def _say_complete(job: Job, chosen: argparse.Namespace) -> None:
    name = str(job.repository) if chosen.directory is None else os.fspath(job.directory)
    if chosen.json:
        print_json(
            {
                "model": name,
                "repository": str(job.repository),
                "commit": job.listing.commit,
                "directory": os.fspath(job.directory),
                "files": len(job.files),
                "bytes": job.size,
            }
        )
        return
    print(f"{job.repository} is complete: {len(job.files)} files, {shown_size(job.size)}, checked")
    print(visible(f"`ds4-agent model use {shlex.quote(name)}` makes it the model"))


class _Progress:
    """How far it is, for people. `add` may be called by any thread, the rest by one."""

    def __init__(self) -> None:
        self._line, self._pace = ProgressLine(after=1.0), Pace()
        self._lock = threading.Lock()
        self._doing, self._done, self._total = "", 0, 0

    def say(self, text: Callable[[], str]) -> None:
        self._line.show(text)

    def begin(self, doing: str, total: int, done: int = 0) -> None:
        """Something that takes `total` bytes, of which `done` need not be done again."""
        self._doing, self._done, self._total = doing, done, total
        self._pace = Pace(done)

    def read(self, count: int) -> None:
        """As `add`, from this thread, and said."""
        self.add(count)
        self.tick()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count

    def tick(self) -> None:
        self._pace.note(self._done)
        self._line.show(self._text)

    def kept(self) -> str:
        """What an interrupt leaves."""
        if self._doing != DOWNLOADING:
            return ""
        return f" with {shown_size(self._done)} of {shown_size(self._total)} kept"

    def close(self) -> None:
        self._line.close()

    def _text(self) -> str:
        done, total = self._done, self._total
        amount = f"{shown_size(done)} of {shown_size(total)} ({100 * done // max(total, 1)} %)"
        return f"{self._doing} {amount}{self._pace.text(total - done)}"
