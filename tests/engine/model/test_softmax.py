"""Attention over pieces against the plain formula in float64: softmax over all visible keys and a
sink that takes its share and gives nothing."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model.softmax import LARGEST_SCORE, Piece, attend_pieces

QUERIES, HEADS, DIM = 5, 3, 16


def plain(q, pieces, sinks):
    """Per query and head: sum of exp(score) * key over exp(sink) + sum of exp(score)."""
    out = np.zeros(q.shape)
    for i, head in np.ndindex(q.shape[:2]):
        keys = [keys if keys.ndim == 2 else keys[i] for keys, _ in pieces]
        seen = [
            np.ones(len(k)) if m is None else m[i] for k, (_, m) in zip(keys, pieces, strict=True)
        ]
        rows = np.concatenate(keys)[np.concatenate(seen) > 0]
        scores = rows @ q[i, head]
        peak = max(scores.max(), sinks[head])
        shares = np.exp(scores - peak)
        out[i, head] = shares @ rows / (shares.sum() + np.exp(sinks[head] - peak))
    return out


def drawn(size, seed):
    """Queries whose scores reach `size`, shared and gathered keys, with masks and without."""
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((QUERIES, HEADS, DIM))
    keys = [(9, DIM), (20, DIM), (QUERIES, 7, DIM)]
    pieces = [
        (rng.standard_normal(keys[0]), None),
        (rng.standard_normal(keys[1]), (rng.random((QUERIES, 20)) < 0.5).astype(np.float64)),
        (rng.standard_normal(keys[2]), (rng.random((QUERIES, 7)) < 0.7).astype(np.float64)),
    ]
    largest = max(np.abs(np.einsum("qhd,...kd->...qhk", q, k)).max() for k, _ in pieces)
    sinks = rng.standard_normal(HEADS) * size / 3
    return q * size / largest, pieces, np.clip(sinks, -size, size)


@pytest.fixture(params=[mx.array, np.asarray], ids=["mlx", "numpy"])
def both(request):
    """(found, expected), found with arrays of either library that the engine computes in."""

    def array(x):
        return None if x is None else request.param(np.asarray(x, dtype=np.float32))

    def compute(q, pieces, sinks, bound):
        own = [Piece(array(keys), array(mask)) for keys, mask in pieces]
        found = attend_pieces(array(q), own, array(sinks), bound)
        return np.array(found), plain(q, pieces, sinks)

    return compute


@pytest.mark.parametrize("size", [1.0, 20.0, LARGEST_SCORE])
def test_scores_within_the_bound(both, size):
    found, expected = both(*drawn(size, 1), bound=LARGEST_SCORE)
    np.testing.assert_allclose(found, expected, atol=3e-5)


@pytest.mark.parametrize("size", [1.0, 100.0, 1000.0])
def test_scores_beyond_what_exponentials_bear(both, size):
    found, expected = both(*drawn(size, 2), bound=max(size, 2 * LARGEST_SCORE))
    np.testing.assert_allclose(found, expected, atol=2e-6 * size + 3e-5)


@pytest.mark.parametrize("sink", [-1000.0, -60.0, 60.0, 1000.0])
def test_a_sink_far_from_the_scores(both, sink):
    q, pieces, _ = drawn(5.0, 3)
    found, expected = both(q, pieces, np.full(HEADS, sink), bound=max(abs(sink), 5.0))
    np.testing.assert_allclose(found, expected, atol=1e-5)
