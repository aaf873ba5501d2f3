"""Prefill: a long run of tokens in chunks of bounded memory, each evaluated. In: tokens, a state.
Out: the logits of the last computed token and the state there. A chunk, once reported, is finished:
stopping after it leaves a valid state.
"""

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx

from ds4_agent.engine.model.arrays import Array
from ds4_agent.engine.model.config import BLOCK_TOKENS
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.state import State, evaluate
from ds4_agent.engine.model.tiles import on_cpu

__all__ = ["CHUNK_TOKENS", "chunk_spans", "prefill"]

# Enough that each expert and each core of a CPU gets long products, few enough to stop promptly.
CHUNK_TOKENS = 1024


def prefill(
    model: Model,
    tokens: Sequence[int],
    state: State,
    *,
    chunk: int = CHUNK_TOKENS,
    on_chunk: Callable[[int, State], bool] | None = None,
) -> tuple[Array, State]:
    """Compute `tokens` (at least one) behind `state`: (logits [vocab] fp32, the state after them).

    After each chunk `on_chunk(tokens done, state)` may return False to stop there; the logits and
    the state are then of the last token done.
    """
    logits: Array | None = None
    for start, stop in chunk_spans(state.position, len(tokens), chunk):
        logits, state = model(tokens[start:stop], state)
        evaluate(logits, state)
        if not on_cpu():
            mx.clear_cache()  # a GPU's freed buffers of one shape are of no use to the next
        if on_chunk is not None and not on_chunk(stop, state):
            break
    if logits is None:
        raise ValueError("prefill needs at least one token")
    return logits, state


def chunk_spans(position: int, count: int, chunk: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the pieces of `count` tokens that begin at `position`, `chunk` at most.

    Chunks of at least a block end on multiples of BLOCK_TOKENS, except the last: there no group is
    open, which makes the state small to keep and equal for all who share the prefix.
    """
    start = 0
    while start < count:
        stop = start + chunk
        overhang = (position + stop) % BLOCK_TOKENS
        if stop < count and overhang < chunk and chunk >= BLOCK_TOKENS:
            stop -= overhang
        yield start, min(stop, count)
        start = min(stop, count)
