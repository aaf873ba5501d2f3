"""A thread that carries out jobs one after another, behind the caller's back. In: jobs. Out:
nothing; what a job leaves is its own affair. It starts with the first job, holds few, and never
holds up whoever hands one in: when it is behind, optional jobs are dropped first, then the oldest.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Writer"]

T = TypeVar("T")
LONGEST = 8  # jobs that wait


class Writer(Generic[T]):
    """Calls `carry_out(job)` for each job added, in order, in one thread."""

    def __init__(self, carry_out: Callable[[T], None], name: str) -> None:
        self._carry_out = carry_out
        self._name = name
        self._jobs: deque[T] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_busy = self._is_closed = self._is_abandoned = False

    @property
    def is_abandoned(self) -> bool:
        """True once nobody waits any more: a job that takes long should look here and end."""
        return self._is_abandoned

    def add(self, job: T, *, is_optional: bool = False) -> None:
        """Hand in a job; an optional one is dropped while another waits. Never waits."""
        with self._changed:
            if self._is_closed or (is_optional and self._jobs):
                return
            if len(self._jobs) == LONGEST:
                self._jobs.popleft()
            self._jobs.append(job)
            if self._thread is None:
                # A daemon, so that a disk that hangs does not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Until every job is done, at most so long; whether they are."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._jobs or self._is_busy:
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return not (self._jobs or self._is_busy)
            return True

    def close(self, seconds: float) -> bool:
        """Take no more jobs and finish those there are, waiting at most so long; what is left then
        is dropped, and the job under way told so. Whether the thread has ended."""
        with self._changed:
            self._is_closed = True
            thread = self._thread
        is_done = self.wait(seconds)
        with self._changed:
            self._is_abandoned = True
            self._jobs.clear()
            self._changed.notify_all()
        if thread is not None and is_done and thread is not threading.current_thread():
            thread.join()
        return is_done

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                while not self._jobs:
                    if self._is_abandoned:
                        return
                    self._changed.wait()
                job = self._jobs.popleft()
                self._is_busy = True
            self._carry_out(job)
            del job  # a State: not to be kept until the next one
