"""How much is computed at once. Every tensor that grows with queries x rows is cut so that it stays
below a budget of elements: within a CPU's cache, and on any device far below the 2^31 elements
where MLX's indexing breaks without a word.
"""

from collections.abc import Iterator

import mlx.core as mx

__all__ = ["QUERY_TILE", "index_budget", "on_cpu", "score_budget", "spans"]

# Queries that share one set of window keys. Of the window + QUERY_TILE keys each attends to
# `window`, so a larger tile wastes scores and a smaller one wastes dispatches.
QUERY_TILE = 64
CPU_SCORES = 1 << 20
GPU_SCORES = 1 << 26
# The indexer's tiles are made and consumed at once: they should stay in a core's own cache.
CPU_INDEX_SCORES = 1 << 17


def on_cpu() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def score_budget() -> int:
    """Elements of the largest tile of scores [queries, heads, keys]."""
    return CPU_SCORES if on_cpu() else GPU_SCORES


def index_budget() -> int:
    """Elements of a tile of the indexer's scores [queries, heads, rows]."""
    return min(CPU_INDEX_SCORES, CPU_SCORES) if on_cpu() else GPU_SCORES


def spans(total: int, step: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of pieces of at most `step` that cover range(total)."""
    for start in range(0, total, step):
        yield start, min(start + step, total)
