"""The one thread that owns MLX: it imports it, loads, prefills and samples. Callers hand it a
closure and wait; only ints, bytes, plain dataclasses and evaluated arrays cross. Never runs two
closures at once, never lets an exception of MLX out as anything but an EngineError.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ds4_agent.engine.errors import Cancelled, EngineError

__all__ = ["Worker", "stop_if"]

P = ParamSpec("P")
R = TypeVar("R")


class Worker:
    """The engine thread.

    Since MLX 0.31.2 streams are thread-local: a lazy array made on one thread cannot be evaluated
    on another (ml-explore/mlx #3281, #3405). One thread for everything is also what keeps clear of
    the IOGPU kernel panic that needs concurrent work (ml-explore/mlx #3186).

    The executor's exit hook joins the thread before the interpreter goes away, so a run that ends
    without `close` does not tear MLX down while it computes.
    """

    def __init__(self, name: str = "ds4-engine") -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """True from `close` on. A long closure (a load) looks here to stop early."""
        return self._closed.is_set()

    def call(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn` on the engine thread and return what it returns.

        EngineError and Cancelled come through as raised; every other exception becomes an
        EngineError with it as the cause. A KeyboardInterrupt in the waiting caller leaves `fn`
        running to its end; its result is dropped.
        """
        return self.outcome(self.submit(fn, *args, **kwargs))

    def submit(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Have `fn` run on the engine thread, behind what was submitted before. Does not wait.

        Raises EngineError when the engine is closed; a `close` before `fn` begins cancels it.
        """
        try:
            return self._executor.submit(fn, *args, **kwargs)
        except RuntimeError as error:
            raise EngineError("the engine is closed") from error

    def outcome(self, future: "Future[R]") -> R:
        """Wait for `future`, which the engine thread completes. Result and errors as of `call`."""
        try:
            return future.result()
        except (EngineError, Cancelled):
            raise
        except CancelledError as error:  # of concurrent.futures: closed while this call waited
            raise EngineError("the engine is closed") from error
        except MemoryError as error:
            raise EngineError(
                "out of memory in the engine; give a smaller --ctx or a smaller model"
            ) from error
        except Exception as error:
            detail = " ".join(str(error).split()) or "no details"
            raise EngineError(f"the engine failed: {type(error).__name__}: {detail}") from error

    def close(self) -> None:
        """Finish what runs, refuse what waits, end the thread. Safe to call twice."""
        self._closed.set()
        self._executor.shutdown(wait=True, cancel_futures=True)


def stop_if(cancel: threading.Event | None) -> None:
    """Raise Cancelled if the caller asked to stop. Looked at between requests, never within one."""
    if cancel is not None and cancel.is_set():
        raise Cancelled("stopped by the caller")
