"""Which families there are, how often each is drawn, and the drawing itself.

In: a random seed and whether words and phrasings are held out. Out: an endless stream of tasks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from training.tasks import commands, edits, functions, history, lines, reading, talk
from training.tasks.phrasing import Phrasing
from training.tasks.task import Task
from training.tasks.vocabulary import Words

Maker = Callable[[Words, Phrasing], Task]
TESTS = "run tests"
# Weights. The families that were learned first have a third: what a model does well has to be kept
# up, and their copies are those of all families. What resists has more: copies out of a request
# that came before the last one, and names found in several files.
FAMILIES: dict[str, tuple[float, Maker | None]] = {
    "replace": (14.0, edits.replace),
    "rename": (12.0, edits.rename),
    "read": (9.0, reading.read),
    "create": (8.0, reading.create),
    TESTS: (7.0, None),  # None: needs a member of the pool
    "git status": (5.0, None),
    "replace all": (3.0, edits.replace_everywhere),
    "replace ambiguous": (2.0, edits.replace_ambiguous),
    "replace fails": (2.5, edits.replace_missing),
    "rename fails": (2.0, edits.rename_missing),
    "read fails": (2.0, reading.read_missing),
    "replace again": (2.5, edits.replace_again),
    "rename again": (2.0, edits.rename_again),
    "replace, show": (1.0, edits.replace_and_show),
    "create, show": (1.0, reading.create_and_show),
    "first lines": (1.0, reading.first_lines),
    "run command": (6.0, None),
    "list": (1.5, reading.list_files),
    "search": (4.0, reading.search),
    "git log": (0.5, commands.git_log),
    "git add": (0.5, commands.git_add),
    "git commit": (1.0, commands.git_commit),
    "tests unknown": (1.5, commands.tests_unknown),
    "replace block": (2.5, lines.replace_block),
    "append": (7.0, lines.append),
    "append again": (7.0, lines.append_again),
    "delete line": (6.0, lines.delete),
    "delete line number": (2.0, lines.delete_number),
    "add import": (6.0, lines.add_import),
    "import again": (6.0, lines.import_again),
    "constant": (4.0, lines.constant),
    "constant anywhere": (2.5, lines.constant_anywhere),
    "change fails": (3.5, lines.change_missing),
    "docstring": (7.0, functions.docstring),
    "docstring anywhere": (2.0, functions.docstring_anywhere),
    "comment": (2.5, functions.comment),
    "function fails": (4.0, functions.function_missing),
    "rename everywhere": (8.0, functions.rename_everywhere),
    "find todos": (1.2, history.todos),
    "search, bounded": (0.8, history.search_most),
    "command fails": (1.5, None),
    "git diff": (3.0, None),
    "replace, diff": (0.8, history.edit_and_diff),
    "git branch": (1.2, history.branch),
    "branch, switch": (1.2, history.branch_and_switch),
    "add, commit": (2.0, history.add_and_commit),
    "greeting": (2.5, talk.greet),
    "declining": (3.0, talk.decline),
}
# What the bars of the evaluation count together; a family that is in neither is a single step.
CHAINS = (
    "replace again", "rename again", "replace, show", "create, show", "append", "append again",
    "delete line", "delete line number", "add import", "import again", "constant",
    "constant anywhere", "docstring", "docstring anywhere", "comment", "rename everywhere",
    "replace, diff", "branch, switch", "add, commit",
)  # fmt: skip
ERRORS = (
    "replace ambiguous", "replace fails", "rename fails", "read fails", "change fails",
    "function fails", "command fails", "tests unknown",
)  # fmt: skip
MEASURED = ("replace", "rename", "read", "create", TESTS, "git status")


def shared_pool(size: int, *, held: bool = False) -> commands.Pool:
    """What is really run once for all shards: always the same for a size."""
    pool = commands.pool(Words(random.Random(f"pool {held}"), held=held), size)
    words = Words(random.Random(f"later {held}"), held=held)  # apart, so that the rest stays
    return replace(
        pool,
        failing=tuple(history.failing_job(words) for _ in range(size)),
        edited=tuple(history.edited_repository(words) for _ in range(size)),
    )


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
        if family == "git diff":
            return history.diff(self.words, self.phrasing, self.rng.choice(self.pool.edited))
        if family == "command fails":
            job = self.rng.choice(self.pool.failing)
            return history.command_fails(self.words, self.phrasing, job)
        job = self.rng.choice(self.pool.jobs)
        return commands.run_command(self.words, self.phrasing, job)
