"""All items of a batch: what they share first, then N of them under way at a time.

In: the items and what the ledger knows of them. Out: an outcome for each, as they come, and exact
counts of what was computed. Items of the same file keep their order. One worked example (the first
item that changes something and holds its check) is what the others go on from.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from ds4_agent.agent import events as ev
from ds4_agent.agent.batch.ledger import Entry, Saved
from ds4_agent.agent.batch.task import Outcome
from ds4_agent.agent.batch.tree_lock import StoppedError
from ds4_agent.agent.batch.trunk import Trunk, plant, turn_ids
from ds4_agent.agent.batch.wording import item_prompt
from ds4_agent.agent.batch.work import ItemWork, Shared
from ds4_agent.engine.errors import Cancelled

if TYPE_CHECKING:
    from ds4_agent.agent.batch.items import Item
    from ds4_agent.engine.dsml.segments import Segment

__all__ = ["Prefilled", "Runner", "Watcher"]

EXAMPLE_TRIES = 3  # items that are done one at a time in search of a worked example
EXAMPLE_SHARE = 8  # it may take one part in so many of the context
TICK_S = 0.2


@dataclass
class Prefilled:
    """Tokens of this run. `shared`: of what all items start from, computed or restored once; `own`:
    of the items' own prompts and results, `items` of them; `computed`: those really computed."""

    shared: int = 0
    own: int = 0
    items: int = 0
    computed: int = 0
    start: int = 0  # tokens that an item starts from: P
    example: int = 0  # of those, the worked example's


@dataclass(frozen=True)
class Watcher:
    """Who is told what happens, always in the thread that called `run`."""

    reading: Callable[[int, int], None]
    began: Callable[[Item], None]
    event: Callable[[Item, ev.Event], None]
    ended: Callable[[Outcome], None]
    tick: Callable[[], None]


@dataclass
class _Groups:
    """Items that wait: those of one file one after another, each group for one thread."""

    waiting: deque[list[Item]] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> list[Item]:
        with self.lock:
            return self.waiting.popleft() if self.waiting else []


# None: a thread has ended.
Message: TypeAlias = "tuple[Item, ev.Event] | Outcome | BaseException | Item | None"


class Runner:
    """Runs the items of one batch, once."""

    def __init__(
        self,
        shared: Shared,
        saved: Saved,
        watcher: Watcher,
        *,
        jobs: int,
        prefix: Sequence[Segment],
        stable: Sequence[Segment],
    ) -> None:
        """`prefix`: the session's prompt, `stable` the part of it that all sessions share."""
        self.prefilled = Prefilled()
        self.shared, self._saved, self._watcher = shared, saved, watcher
        self._jobs = jobs
        self._wants_example = True
        self._prefix, self._stable = prefix, stable
        self._trunk: Trunk | None = None
        self._counted = 0  # tokens of the trunk that are in `prefilled`
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._works: set[ItemWork] = set()
        self._lock = threading.Lock()
        self._examples: dict[int, ItemWork] = {}

    def stop(self) -> None:
        """End as soon as possible: what is under way is left for `--resume`. Thread-safe."""
        self.shared.tree.stop.set()
        for work in tuple(self._works):
            work.interrupt()

    def run(self) -> None:
        """Until every item is at its end, or `stop`. Raises EngineError and OutputError, the files
        as they were before the items that were under way."""
        todo = [item for item in self._saved.items if not self._entry(item).is_ended]
        fresh = [item for item in todo if self._entry(item).state != "edited"]
        try:
            if fresh or (todo and self.shared.task.verify):  # where a check fails, a try follows
                self._plant(fresh or todo)
                todo = self._example(todo, fresh)
            with self.shared.kit.engine.batching(self._jobs):
                self._carry_out(_grouped(todo), self._jobs)
        except Cancelled:  # while the trunk was computed
            return

    def _entry(self, item: Item) -> Entry:
        return self._saved.entry(item.number)

    # What is shared

    def _plant(self, fresh: Sequence[Item]) -> None:
        kit, stop = self.shared.kit, self.shared.tree.stop
        prompts = self._prompts(fresh)
        trunk = plant(kit.engine, self._prefix, self._stable, prompts, stop, self._watcher.reading)
        self._use(trunk)
        example = self._saved.example
        if example is not None and example["fingerprint"] == kit.engine.fingerprint:
            self._wants_example = False  # there is one
            self._use(trunk.with_example_ids(example["ids"], prompts, stop))

    def _use(self, trunk: Trunk) -> None:
        self._trunk = trunk
        count = self.prefilled
        count.computed += trunk.prefilled - self._counted
        self._counted = trunk.prefilled
        count.shared = trunk.prefilled + trunk.restored
        count.start, count.example = trunk.length, trunk.example

    def _prompts(self, items: Sequence[Item]) -> list[list[int]]:
        kit, template = self.shared.kit, self.shared.task.prompt
        thinking = kit.model.thinking
        return [
            turn_ids(kit.engine, item_prompt(template, item), thinking=thinking) for item in items
        ]

    def _example(self, todo: Sequence[Item], fresh: Sequence[Item]) -> list[Item]:
        """Find a worked example; the items that are still to be done."""
        left = list(todo)
        if not self._wants_example or len(fresh) < 3:
            return left
        for item in fresh[:EXAMPLE_TRIES]:
            left.remove(item)
            self._carry_out([[item]], 1)
            if self.shared.tree.stop.is_set():
                return left
            work = self._examples.pop(item.number, None)
            if work is not None and self._take_example(work, left):
                break
        self._wants_example = False
        self._examples.clear()
        return left

    def _take_example(self, work: ItemWork, left: Sequence[Item]) -> bool:
        """Whether the item's conversation is one to go on from."""
        kit, trunk = self.shared.kit, self._trunk
        assert trunk is not None
        if work.context is None or work.is_compacted:
            return False
        ids = list(work.context.tokens[trunk.prefix :])
        if len(ids) > kit.engine.context_length // EXAMPLE_SHARE:
            return False
        fresh = [item for item in left if self._entry(item).state != "edited"]
        self._use(trunk.with_example(work.context, self._prompts(fresh)))
        record = {"type": "example", "item": work.item.number, "ids": ids}
        self.shared.tree.ledger.add({**record, "fingerprint": kit.engine.fingerprint})
        return True

    # The items

    def _carry_out(self, groups: Sequence[list[Item]], threads: int) -> None:
        """Do all of them; raises what a thread raised, when all threads have ended."""
        waiting = _Groups(deque(groups))
        count = min(threads, len(groups))
        for number in range(count):
            name = f"ds4-item-{number + 1}"
            threading.Thread(target=self._thread, args=(waiting,), name=name, daemon=True).start()
        error: BaseException | None = None
        while count:
            try:
                message = self._messages.get(timeout=TICK_S)
            except Empty:
                self._watcher.tick()
                continue
            if message is None:
                count -= 1
            elif isinstance(message, BaseException):
                error = error or message
                self.stop()
            elif error is None:
                try:
                    with self.shared.tree.bounds.quiet:
                        self._hear(message)
                except BaseException as own:  # stdout is gone: the items end in good order
                    error = own
                    self.stop()
        if error is not None:
            raise error

    def _hear(self, message: tuple[Item, ev.Event] | Outcome | Item) -> None:
        if isinstance(message, Outcome):
            self._watcher.ended(message)
        elif isinstance(message, tuple):
            item, event = message
            if isinstance(event, ev.StepFinished):
                usage = event.usage
                self.prefilled.own += usage.input_tokens - usage.cached_tokens
                self.prefilled.computed += usage.prefilled_tokens
            self._watcher.event(item, event)
        else:
            self.prefilled.items += self._entry(message).state != "edited"
            self._watcher.began(message)

    def _thread(self, waiting: _Groups) -> None:
        try:
            while group := waiting.take():
                for item in group:
                    if self.shared.tree.stop.is_set():
                        return
                    self._work(item)
        except StoppedError:
            pass
        except BaseException as error:  # told to the thread that waits for this one
            self._messages.put(error)
        finally:
            self._messages.put(None)

    def _work(self, item: Item) -> None:
        def tell(event: ev.Event) -> None:
            self._messages.put((item, event))

        entry = self._entry(item)
        work = ItemWork(self.shared, item, entry, self._trunk, tell)
        self._messages.put(item)
        with self._lock:
            self._works.add(work)
        try:
            if entry.state not in ("edited", "refused"):
                record = {"type": "state", "item": item.number, "state": "running"}
                self.shared.tree.ledger.add(record, durable=False)
            outcome = work.run()
        finally:
            with self._lock:
                self._works.discard(work)
        if self._wants_example and outcome.state == "changed" and outcome.tries == 1:
            self._examples[item.number] = work
        self._messages.put(outcome)


def _grouped(items: Sequence[Item]) -> list[list[Item]]:
    """Items of one file together, in the order of the first of each."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.path or f"\0{item.number}", []).append(item)
    return list(groups.values())
