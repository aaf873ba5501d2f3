"""`index_scores` and `top_rows` of `indexer`, and `taken_rows` of `rows`, as kernels. Scored
without them, a query's products with all rows are made for all heads and read again twice; chosen
without them, all rows are sorted; taken without them, each block of rows is gone through.
Signatures and results are those of the pure operations, but the chosen rows ascend.
"""

from collections.abc import Sequence
from functools import lru_cache

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.kernels.launch import Launch, Result, Source, source

__all__ = ["SCORES", "TAKEN", "TOP", "index_scores", "taken_rows", "top_rows"]

SCORED_ROWS = 64  # by one threadgroup of SCORE_THREADS
SCORE_THREADS = 256
# As many as Metal allows: the one threadgroup of a query goes through up to 262,144 scores.
TOP_THREADS = 1024
TAKE_THREADS = 128
# Metal binds 31 buffers to a kernel; besides the blocks there are five.
TAKEN_BLOCKS = 24
PADDED = 8  # elements from which on MLX hands an input over as memory, see `launch.SMALL`

SCORES = source("index_scores", ("q", "weights", "rows"), ("scores",))
TOP = source("top_rows", ("scores", "visible"), ("numbers", "valid"))
TAKEN = source("taken_rows", ("numbers", "starts", "before"), ("out",))


def index_scores(
    launch: Launch, q: mx.array, weights: mx.array, blocks: Sequence[mx.array]
) -> mx.array:
    """See `indexer.index_scores`."""
    lines = [_scores_of(launch, q, weights, block) for block in blocks]
    return lines[0] if len(lines) == 1 else mx.concatenate(lines, axis=1)


def _scores_of(launch: Launch, q: mx.array, weights: mx.array, block: mx.array) -> mx.array:
    queries, count = q.shape[0], block.shape[0]
    (scores,) = launch(
        SCORES,
        [q, weights, block],
        [Result((queries, count), mx.float32)],
        template={},
        groups=(-(-count // SCORED_ROWS), queries),
        threads=SCORE_THREADS,
    )
    return scores


def top_rows(
    launch: Launch, scores: mx.array, visible: NDArray[np.int64], top_k: int
) -> tuple[mx.array, mx.array]:
    """See `indexer.top_rows`; the numbers ascend."""
    queries = scores.shape[0]
    numbers, valid = launch(
        TOP,
        [scores, _padded(visible)],
        [Result((queries, top_k), mx.int32), Result((queries, top_k), mx.float32)],
        template={"TOP": top_k},
        groups=(queries, 1),
        threads=TOP_THREADS,
    )
    return numbers, valid


def taken_rows(launch: Launch, blocks: Sequence[mx.array], numbers: mx.array) -> mx.array:
    """See `rows.taken_rows`."""
    width, places = blocks[0].shape[1], numbers.size
    starts = np.cumsum([0, *(block.shape[0] for block in blocks)])
    out: mx.array | None = None
    for first in range(0, len(blocks), TAKEN_BLOCKS):
        some = blocks[first : first + TAKEN_BLOCKS]
        (out,) = launch(
            _of_blocks(len(some)),
            [
                numbers.reshape(places),
                _padded(starts[first : first + len(some) + 1]),
                some[0] if out is None else out,  # not read the first time
                *some,
            ],
            [Result((places, width), blocks[0].dtype)],
            template={"T": blocks[0].dtype, "CHAINED": out is not None},
            groups=(-(-width // TAKE_THREADS), places),
            threads=TAKE_THREADS,
        )
    assert out is not None, "there are no rows to take from"
    return out.reshape(*numbers.shape, width)


@lru_cache(maxsize=TAKEN_BLOCKS)
def _of_blocks(count: int) -> Source:
    """The kernel for so many blocks: its lines about BLOCK once for each."""
    lines = []
    for line in TAKEN.body.splitlines():
        repeats = count if "BLOCK" in line and not line.startswith("//") else 1
        lines += [line.replace("BLOCK", str(block)) for block in range(repeats)]
    names = tuple(f"block_{block}" for block in range(count))
    return Source(f"{TAKEN.name}_{count}", (*TAKEN.inputs, *names), TAKEN.outputs, "\n".join(lines))


def _padded(values: NDArray[np.int64]) -> mx.array:
    """int32, with zeros behind up to PADDED."""
    padded = np.zeros(max(len(values), PADDED), np.int32)
    padded[: len(values)] = values
    return mx.array(padded)
