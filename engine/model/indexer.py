"""The lightning indexer: which compressed rows a query of a CSA layer attends to. In: index
queries, head weights and the index rows. Out: the `index_topk` best visible rows of each query, as
numbers or as a mask. It holds one tile of scores at a time, never [queries, heads, rows].
"""

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.arrays import Array, fp32, library, like, on_host, relu
from ds4_agent.engine.model.rows import Rows
from ds4_agent.engine.model.tiles import index_budget, on_cpu, spans

__all__ = [
    "IndexScores",
    "TopRows",
    "chosen_mask",
    "chosen_rows",
    "index_scores",
    "top_rows",
    "visibility",
]

# The two halves of a choice, `index_scores` and `top_rows`: a kernel may stand in for each.
IndexScores = Callable[[Array, Array, Sequence[Array]], Array]
TopRows = Callable[[Array, NDArray[np.int64], int], tuple[Array, Array]]

# Rows whose sort keys are held before the best are kept and the rest dropped.
TILE_ROWS = 16384
# Queries scored in one product: enough for the product to be efficient, few enough that the tile
# of rows beside them is long.
SCORED_QUERIES = 16

# Among equal scores (ReLU makes many zeros) the earlier row wins whatever the tiling, so that
# chunked and one-shot prefill choose the same rows. MLX sorts keys for that, a score and a row in
# one int64: the score's bits, made to order as integers, above the row counted downwards. Numpy
# partitions the scores themselves, see `_best`.
ROW_MASK = (1 << 31) - 1
_MINUS_INFINITY = int(np.float32(-np.inf).view(np.int32)) ^ 0x7FFFFFFF
LEAST_VALID = (_MINUS_INFINITY + 1) << 32


def chosen_rows(
    q: Array,
    weights: Array,
    rows: Rows,
    visible: NDArray[np.int64],
    top_k: int,
    *,
    score: IndexScores | None = None,
    top: TopRows | None = None,
) -> tuple[Array, Array | None]:
    """(row numbers, mask fp32: 1, and 0 where fewer rows are visible), both [queries, top_k]; no
    mask where all are.

    `q` [queries, heads, dim] and `weights` [queries, heads] are fp32; query i sees the first
    `visible[i]` rows. There are at least `top_k` rows in all. `score` and `top` are kernels for
    `index_scores` and `top_rows`; with a `top` the scores of all rows are held at once.
    """
    if isinstance(q, np.ndarray):
        return _numbers(_best(index_scores(q, weights, rows.blocks()), visible, top_k), top_k)
    score = score or index_scores
    if top is None and score is index_scores and on_cpu():
        return _chosen_on_host(q, weights, rows, visible, top_k)
    if top is not None:
        return top(score(q, weights, rows.blocks()), visible, top_k)
    best, first = None, 0
    for blocks in _tiles(rows):
        keys = _keys(score(q, weights, blocks), first, visible)
        best = keys if best is None else mx.concatenate([best, keys], axis=1)
        best = _largest(best, top_k)
        first += sum(block.shape[0] for block in blocks)
    assert best is not None, "the indexer was asked to choose among no rows"
    return _of_keys(best)


def _chosen_on_host(
    q: Array, weights: Array, rows: Rows, visible: NDArray[np.int64], top_k: int
) -> tuple[Array, Array | None]:
    """Beside quantised weights a CPU computes in MLX, whose wheel multiplies slowly and sorts whole
    keys: numpy chooses among 262,144 rows several times as fast, on the same memory."""
    own = rows.mapped(lambda block: on_host(fp32(block)))
    numbers, mask = chosen_rows(on_host(q), on_host(weights), own, visible, top_k)
    return mx.array(numbers.astype(np.int32)), None if mask is None else mx.array(mask)


def top_rows(scores: Array, visible: NDArray[np.int64], top_k: int) -> tuple[Array, Array]:
    """What `chosen_rows` gives, of the scores [queries, rows] of all rows, in MLX."""
    return _of_keys(_largest(_keys(scores, 0, visible), top_k))


def _of_keys(best: Array) -> tuple[Array, Array]:
    """(numbers, mask) of the rows whose sort keys are the best, [queries, top_k]."""
    valid = best >= LEAST_VALID
    numbers = mx.where(valid, ROW_MASK - (best & ROW_MASK), 0).astype(mx.int32)
    return numbers, valid.astype(mx.float32)


def chosen_mask(
    q: Array,
    weights: Array,
    rows: Rows,
    visible: NDArray[np.int64],
    top_k: int,
    *,
    score: IndexScores | None = None,
) -> Array:
    """The same choice as a mask [queries, rows.length] fp32 of 1 and 0, for few rows."""
    if isinstance(q, np.ndarray):
        chosen = _best(index_scores(q, weights, rows.blocks()), visible, top_k)
        return chosen.astype(np.float32)
    keys = _keys((score or index_scores)(q, weights, rows.blocks()), 0, visible)
    least = library(q).min(_largest(keys, top_k), axis=1, keepdims=True)
    return (keys >= library(q).maximum(least, LEAST_VALID)).astype(library(q).float32)


def _tiles(rows: Rows) -> Iterator[list[Array]]:
    """The blocks of rows, cut and gathered into lists of at most TILE_ROWS rows."""
    held: list[Array] = []
    count = 0
    for block in rows.blocks():
        for start, stop in spans(block.shape[0], TILE_ROWS):
            if count + stop - start > TILE_ROWS:
                yield held
                held, count = [], 0
            held.append(block[start:stop])
            count += stop - start
    if held:
        yield held


def visibility(visible: NDArray[np.int64], first: int, count: int) -> NDArray[np.bool_]:
    """[queries, count]: which of the rows first..first+count-1 each query may see."""
    seen: NDArray[np.bool_] = np.arange(first, first + count) < visible[:, None]
    return seen


def _best(scores: NDArray[np.float32], visible: NDArray[np.int64], top_k: int) -> NDArray[np.bool_]:
    """In numpy, which of the scores [queries, rows] are each query's best: a partition of scores
    takes half the time of one of keys, and ties are few enough to look at one by one."""
    count = scores.shape[1]
    seen = visibility(visible, 0, count)
    if count <= top_k:
        return seen
    if count > visible.min():
        scores = np.where(seen, scores, np.float32(-np.inf))
    least = np.partition(scores, count - top_k, axis=1)[:, count - top_k, None]
    chosen: NDArray[np.bool_] = scores >= least
    surplus = np.count_nonzero(chosen, axis=1) - top_k
    for query in np.flatnonzero(surplus):
        ties = np.flatnonzero(scores[query] == least[query])
        chosen[query, ties[-surplus[query] :]] = False
    return chosen & seen


def _numbers(
    chosen: NDArray[np.bool_], top_k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    """The numbers [queries, top_k] of the chosen rows, ascending; see `chosen_rows`."""
    numbers = np.nonzero(chosen)[1]
    if len(numbers) == len(chosen) * top_k:
        return numbers.reshape(-1, top_k), None
    numbers = np.argsort(~chosen, axis=1, kind="stable")[:, :top_k]
    return numbers, np.take_along_axis(chosen, numbers, axis=1).astype(np.float32)


def _largest(keys: Array, top_k: int) -> Array:
    count = keys.shape[1]
    if count <= top_k:
        return keys
    return library(keys).partition(keys, count - top_k, axis=1)[:, count - top_k :]


def _keys(scores: Array, first: int, visible: NDArray[np.int64]) -> Array:
    """Sort keys [queries, rows] int64 of the rows from `first` on; see above."""
    xp, count = library(scores), scores.shape[1]
    if first + count > visible.min():
        unseen = np.where(visibility(visible, first, count), 0, -np.inf).astype(np.float32)
        scores = scores + like(scores, unseen)
    bits = (scores + 0.0).view(xp.int32)  # + 0.0: minus zero must not sort below zero
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(xp.int64)
    numbers = ROW_MASK - np.arange(first, first + count, dtype=np.int64)
    return (ordered << 32) | like(scores, numbers)


def index_scores(q: Array, weights: Array, blocks: Sequence[Array]) -> Array:
    """sum over heads of weight * relu(q . row): [queries, rows of all blocks] fp32."""
    xp, (queries, heads, dim) = library(q), q.shape
    step = max(index_budget() // (heads * min(queries, SCORED_QUERIES)), 1)
    rows = [
        fp32(block[start:stop]).T for block in blocks for start, stop in spans(block.shape[0], step)
    ]
    weights, lines = weights[:, None], []
    for a, b in spans(queries, SCORED_QUERIES):
        flat, own = q[a:b].reshape(-1, dim), weights[a:b]
        line = [own @ relu(flat @ tile).reshape(b - a, heads, -1) for tile in rows]
        lines.append(line[0] if len(line) == 1 else xp.concatenate(line, axis=2))
    scores = lines[0] if len(lines) == 1 else xp.concatenate(lines, axis=0)
    return scores.reshape(queries, -1)
