"""Which families there are, how often each is drawn, and the drawing itself.

In: a random seed and whether words and phrasings are held out. Out: an endless stream of tasks.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from training.tasks import commands, edits, reading, talk
from training.tasks.phrasing import Phrasing
from training.tasks.task import Task
from training.tasks.vocabulary import Words

Maker = Callable[[Words, Phrasing], Task]
TESTS = "run tests"
# Weights: the six families that the first evaluation measures have about two thirds.
FAMILIES: dict[str, tuple[float, Maker | None]] = {
    "replace": (26.0, edits.replace),
    "rename": (24.0, edits.rename),
    "read": (9.0, reading.read),
    "create": (11.0, reading.create),
    TESTS: (7.0, None),  # None: needs a member of the pool
    "git status": (6.5, None),
    "replace all": (3.0, edits.replace_everywhere),
    "replace ambiguous": (2.0, edits.replace_ambiguous),
    "replace fails": (2.0, edits.replace_missing),
    "rename fails": (1.0, edits.rename_missing),
    "read fails": (1.5, reading.read_missing),
    "replace again": (1.5, edits.replace_again),
    "rename again": (1.0, edits.rename_again),
    "replace, show": (1.0, edits.replace_and_show),
    "create, show": (1.0, reading.create_and_show),
    "first lines": (1.0, reading.first_lines),
    "run command": (4.0, None),
    "list": (1.5, reading.list_files),
    "search": (1.0, reading.search),
    "git log": (0.5, commands.git_log),
    "git add": (0.5, commands.git_add),
    "git commit": (1.0, commands.git_commit),
    "tests unknown": (0.4, commands.tests_unknown),
    "greeting": (0.8, talk.greet),
    "declining": (1.2, talk.decline),
}
MEASURED = ("replace", "rename", "read", "create", TESTS, "git status")


def shared_pool(size: int, *, held: bool = False) -> commands.Pool:
    """What is really run once for all shards: always the same for a size."""
    return commands.pool(Words(random.Random(f"pool {held}"), held=held), size)


class TaskSource:
    """Draws tasks from one seed. `held`: words and phrasings never used in training."""

    def __init__(self, seed: int, pool: commands.Pool, *, held: bool = False) -> None:
        self.rng = random.Random(seed)
        self.words = Words(self.rng, held=held)
        self.phrasing = Phrasing(self.rng, held=held)
        self.pool = pool

    def task(self, family: str | None = None) -> Task:
        """A task of `family`, or of one drawn by weight."""
        if family is None:
            weights = [weight for weight, _ in FAMILIES.values()]
            family = self.rng.choices(list(FAMILIES), weights)[0]
        while True:
            try:
                return self._made(family)
            except ValueError:  # a draw that cannot be made unambiguous: draw again
                continue

    def _made(self, family: str) -> Task:
        make = FAMILIES[family][1]
        if make is not None:
            return make(self.words, self.phrasing)
        if family == TESTS:
            project = self.rng.choice(self.pool.projects)
            return commands.tests(self.words, self.phrasing, project)
        if family == "git status":
            git = self.rng.choice(self.pool.repositories)
            return commands.git_status(self.words, self.phrasing, git)
        job = self.rng.choice(self.pool.jobs)
        return commands.run_command(self.words, self.phrasing, job)
