"""Gathers the decoding steps of several contexts into batches. In: one token and one state from
each thread that decodes. Out: to each its own logits and state, with the bits it would get alone.
It never holds back a context that decodes by itself, and never lets one item's error reach another.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import EngineError
from ds4_agent.engine.worker import Worker

if TYPE_CHECKING:
    from ds4_agent.engine.model.model import Model
    from ds4_agent.engine.model.state import State

__all__ = ["Stepped", "Steps"]

# How long those who are there wait for those who were in the last batch, in durations of that
# batch. Whoever is late is not waited for again until he has come by himself: so what this can
# cost is two steps each time that a context stops decoding without a word.
PATIENCE = 2.0

Stepped = tuple[NDArray[np.float32], "State"]  # logits [vocabulary], the state after the token


@dataclass(frozen=True, eq=False)
class _Request:
    owner: object
    token: int
    state: "State"
    future: "Future[Stepped]" = field(default_factory=Future)


class Steps:
    """The steps of one engine. Batches of one until `gathered` allows more.

    A batch is made on the engine thread, just before it is computed: of all requests that came
    while the thread did something else, and of those by contexts that took part in the batch
    before and are still decoding, which it waits for. A lone context finds nobody to wait for.
    """

    def __init__(self, worker: Worker, model: "Model", vocabulary: int) -> None:
        self._worker = worker
        self._model = model
        self._vocabulary = vocabulary
        self._changed = threading.Condition()  # held to read or write any of the following
        self._limit = 1
        self._waiting: list[_Request] = []
        self._expected: set[object] = set()  # owners of the last batch who have not come back yet
        self._is_scheduled = False
        self._patience = 0.0  # seconds

    @property
    def are_gathered(self) -> bool:
        return self._limit > 1

    @contextmanager
    def gathered(self, limit: int) -> Iterator[None]:
        """Inside, up to `limit` steps are computed as one batch."""
        with self._changed:
            before, self._limit = self._limit, max(limit, 1)
        try:
            yield
        finally:
            with self._changed:
                self._limit = before

    def step(self, owner: object, token: int, state: "State") -> Stepped:
        """Compute `token` behind `state`, together with whoever else steps now; waits for it.

        `owner` stands for the context: it is expected again until it says `leave`. Raises what
        `Worker.call` raises, and only what concerns this token and state.
        """
        request = _Request(owner, token, state)
        with self._changed:
            if not self._is_scheduled:
                self._schedule()
            self._waiting.append(request)
            self._expected.discard(owner)
            self._notify_if_complete()
        return self._worker.outcome(request.future)

    def leave(self, owner: object) -> None:
        """`owner` does something else than decode now: nobody needs to wait for it."""
        with self._changed:
            if owner in self._expected:
                self._expected.remove(owner)
                self._notify_if_complete()

    def _notify_if_complete(self) -> None:
        if self._is_complete():
            self._changed.notify()

    def _is_complete(self) -> bool:
        return not self._expected or len(self._waiting) >= self._limit

    def _schedule(self) -> None:
        """Behind what others have asked the engine thread for, so that prefills go on as well."""
        future = self._worker.submit(self._run)
        self._is_scheduled = True
        future.add_done_callback(self._refuse_if_cancelled)

    def _schedule_or_refuse(self) -> None:
        try:
            self._schedule()
        except EngineError:  # closed meanwhile
            self._refuse_waiting()

    def _refuse_if_cancelled(self, run: "Future[None]") -> None:
        """The engine was closed before the batch was made: tell those who wait for it."""
        if run.cancelled():
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        with self._changed:
            refused, self._waiting = self._waiting, []
            self._is_scheduled = False
        for request in refused:
            request.future.cancel()

    def _run(self) -> None:
        """Runs on the engine thread: one batch."""
        batch = self._gather()
        began = time.monotonic()
        self._compute(batch)
        with self._changed:
            self._patience = PATIENCE * (time.monotonic() - began)
            self._is_scheduled = False
            if self._waiting:
                self._schedule_or_refuse()

    def _gather(self) -> list[_Request]:
        until = time.monotonic() + self._patience
        with self._changed:
            while not self._is_complete() and self._changed.wait(until - time.monotonic()):
                pass
            batch = self._waiting[: self._limit]
            del self._waiting[: self._limit]
            self._expected = {request.owner for request in batch}
        return batch

    def _compute(self, batch: list[_Request]) -> None:
        """Give each of `batch` its result or its error."""
        try:
            results = self._results(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:  # what concerns one must not harm the others
                for request in batch:
                    self._compute([request])
            return
        for request, result in zip(batch, results, strict=True):
            request.future.set_result(result)

    def _results(self, batch: list[_Request]) -> list[Stepped]:
        from ds4_agent.engine.model.state import evaluate

        tokens, states = [r.token for r in batch], [r.state for r in batch]
        logits, after = self._model.step_many(tokens, states)
        evaluate(logits, *after)
        # A copy of each row: kept by one context, it must not keep those of all alive.
        rows = np.array(logits, dtype=np.float32, copy=None)[:, : self._vocabulary]
        return [(row.copy(), state) for row, state in zip(rows, after, strict=True)]
