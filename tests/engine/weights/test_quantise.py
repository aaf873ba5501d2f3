"""A quantised matrix is one MLX can compute with, and no group of it is further from the matrix,
each input counted as it matters, than round-to-nearest leaves it."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds4_agent.engine.weights import quantise
from ds4_agent.engine.weights.packed_formats import PackedFormat
from ds4_agent.engine.weights.quantise import quantised

AFFINE = [PackedFormat("affine", bits, size) for bits in (2, 3, 4, 5, 6, 8) for size in (32, 64)]


def restored(parts, target):
    """The fp32 matrix that quantised parts stand for."""
    codes, scales, biases = parts
    values = mx.dequantize(
        codes, scales, biases, group_size=target.group_size, bits=target.bits, mode=target.mode
    )
    return np.array(values, dtype=np.float64)


def ours(matrix, target, importance=None):
    counts = None if importance is None else mx.array(importance)
    parts = quantised(mx.array(matrix), target, counts)
    return restored((parts.codes, parts.scales, parts.biases), target)


def nearest(matrix, target, *, in_bf16):
    """MLX's round-to-nearest, its scales and biases as a bf16 checkpoint has them, or in fp32."""
    codes, scales, biases = mx.quantize(
        mx.array(matrix), group_size=target.group_size, bits=target.bits
    )
    if in_bf16:
        scales, biases = (x.astype(mx.bfloat16).astype(mx.float32) for x in (scales, biases))
    return restored((codes, scales, biases), target)


def group_errors(values, matrix, importance, target):
    wrong = importance * (values - matrix.astype(np.float64)) ** 2
    return wrong.reshape(*matrix.shape[:-1], -1, target.group_size).sum(axis=-1)


@st.composite
def problems(draw):
    """(matrix [m, 128], importance [128], format): heavy tails, dead inputs, constants."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = draw(st.integers(1, 3))
    matrix = rng.standard_t(draw(st.sampled_from([2, 4, 50])), (rows, 128))
    matrix = (matrix * 10.0 ** draw(st.integers(-6, 4))).astype(np.float32)
    importance = np.exp(draw(st.sampled_from([0.0, 1.0, 3.0])) * rng.standard_normal(128))
    importance[rng.random(128) < draw(st.sampled_from([0.0, 0.3, 0.97, 1.0]))] = 0
    matrix[:, rng.random(128) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = draw(
        st.sampled_from([0.0, 1.0, -0.3])
    )
    return matrix, importance.astype(np.float32), draw(st.sampled_from(AFFINE))


@settings(deadline=None, max_examples=60)
@given(problems())
def test_no_group_is_worse_than_rounding_to_the_nearest(problem):
    matrix, importance, target = problem
    ones = np.ones_like(importance)
    for counts, found in (
        (importance, ours(matrix, target, importance)),
        (ones, ours(matrix, target)),
    ):
        mine = group_errors(found, matrix, counts, target)
        theirs = group_errors(nearest(matrix, target, in_bf16=True), matrix, counts, target)
        # The search compares errors that it has in fp32.
        slack = 1e-5 * theirs + 1e-12 * group_errors(0, matrix, counts, target)
        assert (mine <= theirs + slack).all()


@pytest.mark.parametrize("target", AFFINE, ids=lambda f: f"{f.bits}-{f.group_size}")
def test_few_bits_gain_most(target):
    """On a matrix as models have them, and inputs some of which are ten times as large as others:
    better than MLX's rounding even with scales in fp32, and what is stored is exact in bf16."""
    rng = np.random.default_rng(target.bits)
    matrix = rng.standard_normal((64, 256)).astype(np.float32)
    importance = np.exp(1.5 * rng.standard_normal(256)).astype(np.float32)
    error = group_errors(ours(matrix, target, importance), matrix, importance, target).sum()
    rtn = nearest(matrix, target, in_bf16=False)
    share = error / group_errors(rtn, matrix, importance, target).sum()
    assert share < {2: 0.55, 3: 0.6, 4: 0.65, 5: 0.7, 6: 0.75, 8: 0.9}[target.bits]
    parts = quantised(mx.array(matrix), target)
    for stored in (parts.scales, parts.biases):
        assert mx.array_equal(stored.astype(mx.bfloat16).astype(mx.float32), stored)


@pytest.mark.parametrize("target", AFFINE, ids=lambda f: f"{f.bits}-{f.group_size}")
def test_codes_are_packed_as_mlx_packs_them(target):
    """A matrix of 0, 1, … is its own codes, so every bit is where MLX wants it."""
    top = (1 << target.bits) - 1
    codes = np.random.default_rng(1).integers(0, top + 1, (3, 128)).astype(np.float32)
    words = quantise._words(mx.array(codes), target.bits)
    ones = mx.ones((3, 128 // target.group_size))
    assert np.array_equal(restored((words, ones, ones * 0), target), codes)


def test_experts_have_their_own_importance():
    """[experts, m, k] with [experts, 1, k] is each expert alone; blocks of rows change nothing."""
    rng, target = np.random.default_rng(3), PackedFormat("affine", 2, 32)
    matrices = rng.standard_normal((3, 10, 64)).astype(np.float32)
    importance = rng.random((3, 1, 64)).astype(np.float32) ** 4
    together = ours(matrices, target, importance)
    alone = [ours(m, target, i[0]) for m, i in zip(matrices, importance, strict=True)]
    assert np.array_equal(together, np.stack(alone))
    rows = np.repeat(importance, 10, axis=1)
    assert np.array_equal(together, ours(matrices, target, rows))


def test_rows_are_done_in_blocks(monkeypatch):
    rng, target = np.random.default_rng(4), PackedFormat("affine", 2, 32)
    matrix = rng.standard_normal((10, 64)).astype(np.float32)
    rows = rng.random((10, 64)).astype(np.float32)
    whole = ours(matrix, target, rows)
    monkeypatch.setattr(quantise, "CPU_BLOCK", 3 * 64)
    assert np.array_equal(whole, ours(matrix, target, rows))


@pytest.mark.parametrize(
    "target",
    [PackedFormat("mxfp4", 4, 32), PackedFormat("mxfp8", 8, 32), PackedFormat("nvfp4", 4, 16)],
    ids=lambda f: f.mode,
)
def test_the_other_modes_are_rounded_to_the_nearest(target):
    matrix = mx.array(np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32))
    parts = quantised(matrix, target, mx.ones((64,)))
    codes, scales = mx.quantize(
        matrix, group_size=target.group_size, bits=target.bits, mode=target.mode
    )
    assert parts.biases is None
    assert mx.array_equal(parts.codes, codes)
    assert mx.array_equal(parts.scales, scales)
