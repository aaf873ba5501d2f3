"""Runs blocking work in a thread and hands on what it reports as it comes.

In: a function that is given `emit`. Out: a generator of what was emitted, whose value is the
function's result. The generator never ends before its thread has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Generic, TypeVar

__all__ = ["streamed"]

T = TypeVar("T")
R = TypeVar("R")


class _Ended(Generic[R]):
    def __init__(self, result: R | None, error: BaseException | None) -> None:
        self.result = result
        self.error = error


def streamed(
    work: Callable[[Callable[[T], None]], R], cancel: threading.Event, name: str
) -> Generator[T, None, R]:
    """Yield what `work` emits; return what it returns, raise what it raises.

    Leaving the generator early sets `cancel`, which `work` must honour, and waits for it.
    """
    queue: SimpleQueue[T | _Ended[R]] = SimpleQueue()

    def body() -> None:
        try:
            queue.put(_Ended(work(queue.put), None))
        except BaseException as error:  # raised again in the caller's thread
            queue.put(_Ended(None, error))

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if isinstance(item, _Ended):
                break
            yield item
    except BaseException:
        cancel.set()
        raise
    finally:
        thread.join()
    if item.error is not None:
        raise item.error
    return item.result  # type: ignore[return-value]  # no error, so it is an R
