"""The indexer chooses the same rows in numpy and in MLX, the earlier ones among equal scores."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model.indexer import chosen_mask, chosen_rows
from ds4_agent.engine.model.rows import Rows

HEADS, WIDTH = 3, 4


def case(seed, queries, count, least_visible):
    """Small whole numbers, so that every score is exact and many are equal."""
    rng = np.random.default_rng(seed)
    q = rng.integers(-1, 2, (queries, HEADS, WIDTH)).astype(np.float32)
    weights = rng.integers(-1, 3, (queries, HEADS)).astype(np.float32)
    rows = rng.integers(-1, 2, (count, WIDTH)).astype(np.float32)
    visible = np.linspace(least_visible, count, queries).astype(np.int64)
    return q, weights, rows, visible


def best(q, weights, rows, visible, top_k):
    """By the definition: the best visible rows, by score and then by age."""
    scores = np.einsum("qh,qhr->qr", weights, np.maximum(np.einsum("qhd,rd->qhr", q, rows), 0))
    mask = np.zeros(scores.shape, np.float32)
    for line, (score, seen) in enumerate(zip(scores, visible, strict=True)):
        order = sorted(range(seen), key=lambda row: (-score[row], row))
        mask[line, order[:top_k]] = 1
    return mask


@pytest.mark.parametrize("convert", [np.asarray, mx.array], ids=["numpy", "mlx"])
@pytest.mark.parametrize(
    ("queries", "count", "least_visible", "top_k"),
    [(1, 40, 40, 8), (6, 40, 40, 8), (6, 40, 3, 8), (5, 300, 1, 7), (3, 9, 2, 9)],
)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_best_visible_rows(
    monkeypatch, on_cpu, convert, queries, count, least_visible, top_k, seed
):
    monkeypatch.setattr("ds4_agent.engine.model.indexer.on_cpu", lambda: on_cpu)
    q, weights, rows, visible = case(seed, queries, count, least_visible)
    held = Rows.empty(WIDTH, mx.float32).mapped(convert).append(convert(rows))
    expected = best(q, weights, rows, visible, top_k)

    mask = chosen_mask(convert(q), convert(weights), held, visible, top_k)
    numbers, valid = chosen_rows(convert(q), convert(weights), held, visible, top_k)

    assert np.array_equal(np.array(mask), expected)
    counted = np.ones(numbers.shape) if valid is None else np.array(valid)
    for line in range(queries):
        taken = np.array(numbers)[line][counted[line] > 0]
        assert sorted(taken.tolist()) == np.flatnonzero(expected[line]).tolist()
