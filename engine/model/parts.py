"""Cuts a chunk into parts that the cores of a CPU compute side by side. A part needs of the one
before it only each layer's state, which is there long before that part's queries have attended to
it: so every part runs through all layers on its own thread, a little behind the one before.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

from ds4_agent.engine.blas import usable_cores
from ds4_agent.engine.model.state import LayerState
from ds4_agent.engine.model.tiles import spans

__all__ = ["Before", "Behind", "part_spans", "run_parts"]

PART_TOKENS = 64  # fewer are not worth a thread
MOST_PARTS = 8

# How a part asks for the state of a layer before it, and how it hands on the one after it.
Before = Callable[[int], LayerState]
Behind = Callable[[int, LayerState], None]
T = TypeVar("T")


def part_spans(tokens: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the parts of `tokens`."""
    count = tokens // PART_TOKENS
    if count > 1:  # asking for the cores reads a file: not for every token
        count = min(usable_cores(), MOST_PARTS, count)
    return spans(tokens, -(-tokens // max(count, 1)))


def run_parts(
    parts: Sequence[tuple[int, int]],
    layers: Sequence[LayerState],
    work: Callable[[int, int, Before, Behind], T],
) -> tuple[list[T], list[LayerState]]:
    """`work(start, stop, before, behind)` of all parts at once: (its results, the layers' states
    behind the last part). `layers` are those before the first. An error of a part is raised."""
    if len(parts) == 1:
        after = list(layers)
        return [work(*parts[0], layers.__getitem__, after.__setitem__)], after
    relays = [[Future[LayerState]() for _ in layers] for _ in range(len(parts) + 1)]
    for given, state in zip(relays[0], layers, strict=True):
        given.set_result(state)

    def run(number: int) -> T:
        mine, next_one = relays[number], relays[number + 1]
        try:
            return work(
                *parts[number],
                lambda layer: mine[layer].result(),
                lambda layer, state: next_one[layer].set_result(state),
            )
        except BaseException as error:
            # Whoever waits for this part must not wait for ever.
            for promised in next_one:
                if not promised.done():
                    promised.set_exception(error)
            raise

    # A part waits only for parts that were begun before it, so threads may be fewer than parts.
    others = [_threads().submit(run, number) for number in range(1, len(parts))]
    first = run(0)
    results = [first, *(other.result() for other in others)]
    return results, [promised.result() for promised in relays[-1]]


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_PARTS - 1, thread_name_prefix="ds4-part")
