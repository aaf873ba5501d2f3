"""One item from its start to its end: the model's turn, the check, another try, the files.

In: an item and what the batch shares. Out: its `Outcome`, with the files changed for good, or as
they were. Raises StoppedError where the batch is being stopped: then the item is as if it had not
begun, or, where the model was done with it, it goes on from there the next time.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent import events as ev
from ds4_agent.agent.batch.commit import commit_message, commit_paths
from ds4_agent.agent.batch.globs import normal
from ds4_agent.agent.batch.kit import Kit, item_agent, refusal, second_agent
from ds4_agent.agent.batch.ledger import Entry
from ds4_agent.agent.batch.patch import file_patch, patch_root
from ds4_agent.agent.batch.placing import Tree, files_of, restored_changes
from ds4_agent.agent.batch.stage import Change, ItemStage
from ds4_agent.agent.batch.task import Outcome, State, Task, outcome_record
from ds4_agent.agent.batch.tree_lock import StoppedError
from ds4_agent.agent.batch.wording import (
    check_output_prompt,
    check_output_reason,
    item_command,
    item_pattern,
    item_prompt,
    second_prompt,
)

if TYPE_CHECKING:
    from ds4_agent.agent.batch.head_start import HeadStart
    from ds4_agent.agent.batch.items import Item
    from ds4_agent.agent.batch.trunk import Trunk
    from ds4_agent.agent.loop import Agent
    from ds4_agent.tools.git import Repository

__all__ = ["ItemWork", "Shared", "refusals"]


class ItemFailedError(Exception):
    """Why an item cannot be done."""


@dataclass(frozen=True)
class Refused:
    """A check that failed: what the model is told of it, and the user in one line."""

    told: str
    reason: str


@dataclass(frozen=True)
class Shared:
    """What all items work with. `dirty`: paths with changes of the user's own, which no commit may
    take along; `repository` is there for commits only; `claimed`: which item changes which file,
    where changes are not applied and so cannot build on each other."""

    kit: Kit
    task: Task
    tree: Tree
    dirty: frozenset[str] = frozenset()
    repository: Repository | None = None
    claimed: dict[str, int] = field(default_factory=dict)

    def claim(self, path: str, item: int) -> None:
        """Raises ToolError where another item changes `path`."""
        from ds4_agent.tools.types import ToolError

        other = self.claimed.setdefault(path, item)  # atomic
        if other != item:
            raise ToolError(f"{path} is changed by item {other} too; apply that change first")


def refusals(task: Task, item: Item, root: Path) -> Callable[[Path], str]:
    """Why the item may not change a path, "" where it may."""
    own = root / item.path if item.path else None
    scope = tuple(normal(item_pattern(pattern, item)) for pattern in task.scope)
    return lambda path: refusal(item, own, root, scope, path)


class ItemWork:
    """An item under way, in a thread of its own."""

    def __init__(
        self,
        shared: Shared,
        item: Item,
        entry: Entry,
        trunk: Trunk | None,
        tell: Callable[[ev.Event], None],
    ) -> None:
        """`entry`: what the ledger knows of it; `trunk` None: the model is not needed any more."""
        self.item = item
        self.context: HeadStart | None = None  # of the first try, whole once `run` returned
        self.is_compacted = False
        self._shared, self._task, self._tree = shared, shared.task, shared.tree
        self._entry = entry
        self._trunk = trunk
        self._tell = tell
        self._agent: Agent | None = None
        self._began = time.monotonic()
        root = self._tree.workspace.root
        self._own = root / item.path if item.path else None
        self._stage = ItemStage(refusals(self._task, item, root))
        self._done = Outcome(item, "failed")  # what is known of its end so far
        self._spent = 0.0  # seconds of the model's turns

    def interrupt(self) -> None:
        """Stop the model. Thread-safe."""
        if self._agent is not None:
            self._agent.interrupt()

    def run(self) -> Outcome:
        """Raises StoppedError, OutputError and EngineError with the files as they were."""
        from ds4_agent.engine.errors import ContextFullError
        from ds4_agent.tools.types import ToolError

        try:
            return self._run()
        except (ItemFailedError, ToolError, ContextFullError) as error:
            return self._ended("failed", reason=str(error))

    def _run(self) -> Outcome:
        prompt = item_prompt(self._task.prompt, self.item)
        if self._entry.state == "edited":
            self._take_up()
            for change in restored_changes(self._entry, self._tree):
                self._stage.hold(change)
        elif self._entry.state == "refused":  # the try that followed ended with its process
            self._take_up()
            self._turn(second_prompt(prompt, self._entry.record["told"]))
        else:
            self._look()
            self._turn(prompt)
        while True:
            self._write_down()
            refused = self._conclude()
            if refused is None:
                changes = self._stage.changes
                return self._ended("changed" if changes else "unchanged")
            if self._done.tries > self._task.retries:
                raise ItemFailedError(refused.reason)
            record = {**outcome_record(self._done), "state": "refused", "told": refused.told}
            self._tree.ledger.add({"type": "state", "item": self.item.number, **record})
            if self._agent is None:  # its conversation ended with the process that held it
                self._stage.clear()
                self._turn(second_prompt(prompt, refused.told))
            else:
                assert self._trunk is not None
                number = self._done.tries + 1
                self._agent = second_agent(self._shared.kit, self._trunk, self._agent, number)
                self._turn(refused.told)

    def _look(self) -> None:
        if self.item.path and self.item.exists and self._own and not self._own.is_file():
            raise ItemFailedError(f"{self.item.path} does not exist any more")

    def _take_up(self) -> None:
        """Go on where the model was done."""
        record = self._entry.record
        self._done = replace(
            self._done,
            text=record["text"],
            tries=record["tries"],
            turns=record["turns"],
            usage=ev.Usage(**record["tokens"]),
        )

    # The model

    def _turn(self, prompt: str) -> None:
        """One try of the model. Raises ItemFailedError where it does not come to its end."""
        agent = self._agent_now()
        self._done = replace(self._done, tries=self._done.tries + 1)
        began = time.monotonic()
        before = self._done
        for event in agent.run(prompt):
            if self._tree.stop.is_set() or self._stage.failure:
                agent.interrupt()
            if isinstance(event, ev.Compacted):
                self.is_compacted = True
            if isinstance(event, ev.StepFinished):
                usage = self._done.usage + event.usage
                self._done = replace(self._done, usage=usage, turns=self._done.turns + 1)
            self._tell(event)
        assert isinstance(event, ev.TurnEnded)
        self._spent += time.monotonic() - began
        self._done = replace(
            self._done,
            text=event.text,
            usage=before.usage + event.usage,
            turns=before.turns + event.steps,
        )
        if self._stage.failure:
            raise ItemFailedError(self._stage.failure)
        if event.reason == "interrupted" or self._tree.stop.is_set():
            raise StoppedError
        if event.reason != "end":
            raise ItemFailedError(event.detail)

    def _agent_now(self) -> Agent:
        """The item's agent, with what is left of the item's limits."""
        kit = self._shared.kit
        if self._agent is None:
            assert self._trunk is not None
            self.context = self._trunk.item_context()
            self._agent = item_agent(
                *(kit, self._trunk, self.context, self._stage, self._tree, self.item, self._own)
            )
        limits = kit.limits
        left = (
            None if limits.max_turns is None else limits.max_turns - self._done.turns,
            None
            if limits.max_tokens is None
            else limits.max_tokens - self._done.usage.output_tokens,
            None if limits.seconds is None else limits.seconds - self._spent,
        )
        if any(rest is not None and rest <= 0 for rest in left) and self._done.tries:
            raise ItemFailedError("the check failed and the item's limits leave no other try")
        self._agent.limits = replace(limits, max_turns=left[0], max_tokens=left[1], seconds=left[2])
        return self._agent

    # The files

    def _write_down(self) -> None:
        """The model is done: nothing of it has to be repeated from here on."""
        changes = self._stage.changes
        self._done = replace(
            self._done,
            files=tuple(files_of(changes, self._tree.workspace, self._tree.ledger)),
            **_figures(changes, self._tree.workspace.root),
        )
        if changes or self._task.verify:  # else its end follows at once
            record = {**outcome_record(self._done), "state": "edited"}
            self._tree.ledger.add({"type": "state", "item": self.item.number, **record})

    def _conclude(self) -> Refused | None:
        """Put the changes into the files, check them, keep them or take them out. None where they
        are kept. Raises ToolError, StoppedError."""
        task, tree, changes = self._task, self._tree, self._stage.changes
        if not task.applies:
            for file in self._done.files:
                self._shared.claim(str(file["path"]), self.item.number)
        if not task.verify and not (changes and task.applies):
            return None
        self._refuse_dirty(changes)
        with tree.lock.held(tree.stop):
            placed = tree.put(changes)
            kept = False
            try:
                refused = self._check() if task.verify else None
                if refused is None:
                    self._take_over(tree.found(placed))
                    if task.applies:
                        self._commit()
                        kept = True
                return refused
            finally:
                if not kept:
                    tree.take_out(placed)

    def _take_over(self, found: Sequence[Change]) -> None:
        """What the check's command added to the changes is part of them."""
        if any(change != held for change, held in zip(found, self._stage.changes, strict=True)):
            for change in found:
                self._stage.hold(change)
            self._write_down()

    def _check(self) -> Refused | None:
        from ds4_agent.tools.shell import shell

        command = item_command(self._task.verify, self.item)
        arguments = [shell(), "--noprofile", "--norc", "-c", command]
        limit = self._task.verify_seconds
        root = self._tree.workspace.root
        try:
            job = self._shared.kit.processes.start(arguments, root, timeout=limit)
        except OSError as error:
            raise ItemFailedError(f"the check cannot start: {error.strerror or error}") from error
        if not job.wait(self._tree.stop) or job.ended is None:
            self._tree.settle()  # before its files are taken out
            raise StoppedError
        if job.ended.how == "exited" and job.ended.code == 0:
            return None
        ending = f"exit code {job.ended.code}"
        if job.ended.how == "timed out":
            ending = f"it did not end within {limit:g} s and was stopped"
        output = job.output.text()
        return Refused(
            check_output_prompt(command, ending, output), check_output_reason(ending, output)
        )

    def _refuse_dirty(self, changes: Sequence[Change]) -> None:
        if not self._task.commit:
            return
        root = self._tree.workspace.root
        for change in changes:
            if os.path.relpath(change.place.real, root) in self._shared.dirty:
                raise ItemFailedError(f"{change.place.shown} has changes that are not committed")

    def _commit(self) -> None:
        shared, task = self._shared, self._task
        if task.commit != "each" or shared.repository is None or not self._done.files:
            return
        message = commit_message(task.prompt, path=self.item.shown, batch=self._shared.kit.batch)
        paths = [str(file["path"]) for file in self._done.files]
        made = commit_paths(shared.repository, paths, message, self._tree.ledger.folder)
        self._done = replace(self._done, commit=made)

    def _ended(self, state: State, reason: str = "") -> Outcome:
        """The item's end, on the disk itself."""
        self._tree.check()
        seconds = time.monotonic() - self._began
        outcome = replace(self._done, state=state, reason=reason, seconds=seconds)
        if state == "failed":
            outcome = replace(outcome, files=(), diff_sha256="", added=0, removed=0)
        record = {"type": "state", "item": self.item.number, **outcome_record(outcome)}
        self._tree.ledger.add(record)
        return outcome


def _figures(changes: Sequence[Change], root: Path) -> dict[str, Any]:
    """The hash of the patch, and the lines it adds and removes."""
    digest, added, removed, top = hashlib.sha256(), 0, 0, patch_root(root)
    for change in changes:
        before = None if change.before is None else change.before.data
        patch = file_patch(os.path.relpath(change.place.real, top), before, change.after)
        digest.update(patch.data)
        added, removed = added + patch.added, removed + patch.removed
    name = digest.hexdigest() if changes else ""
    return {"diff_sha256": name, "added": added, "removed": removed}
