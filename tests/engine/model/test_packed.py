"""Products with quantised weights are products with the matrices they stand for, whichever way the
model asks: at once, by expert, gathered for a GPU, or joined of several formats."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model.packed import (
    Joined,
    Packed,
    expert_of,
    gathered_product,
    grouped,
    has_packed,
    joined,
    product,
    rows_of,
    stacked,
    unpacked,
)

FORMATS = [
    ("affine", 3, 32),
    ("affine", 8, 64),
    ("mxfp4", 4, 32),
    ("mxfp8", 8, 32),
    ("nvfp4", 4, 16),
]


def drawn(*shape):
    return mx.array(np.random.RandomState(len(shape)).uniform(-1, 1, shape).astype(np.float32))


def packed(values, form, dtype=mx.float32):
    mode, bits, group_size = form
    parts = mx.quantize(values, mode=mode, bits=bits, group_size=group_size)
    codes, scales, biases = (*parts, None)[:3]
    return Packed(codes, scales, biases, *form, dtype)


def near(a, b):
    return np.allclose(np.array(a), np.array(b), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_products(form):
    x, weight = drawn(5, 128), packed(drawn(24, 128), form)
    assert near(product(x, weight), x @ unpacked(weight).T)
    ids = mx.array([3, 0, 23])
    assert np.array_equal(np.array(rows_of(weight, ids)), np.array(unpacked(weight)[ids]))
    groups = grouped(weight, 3)
    each = mx.stack([x @ unpacked(expert_of(groups, g)).T for g in range(3)])
    assert near(product(mx.broadcast_to(x, (3, 5, 128)), groups), each)


@pytest.mark.parametrize("form", FORMATS)
def test_gathered_products_are_those_of_each_expert(form):
    """A GPU's way, on whatever this machine computes with."""
    weight = packed(drawn(4, 24, 128), form)
    assert_gathered(weight)
    assert_gathered(Joined((weight, drawn(4, 8, 128))))


def assert_gathered(weight):
    rows, experts = drawn(6, 1, 128), mx.array([0, 0, 1, 3, 3, 3])
    each = [
        product(row, expert_of(weight, e)) for row, e in zip(rows, experts.tolist(), strict=True)
    ]
    for is_sorted in (False, True):
        got = gathered_product(rows, weight, experts, sorted_indices=is_sorted)
        assert near(got, mx.stack(each))


def test_alike_become_one_and_others_stay_apart():
    first, second = packed(drawn(8, 64), FORMATS[2]), packed(drawn(16, 64) * 2, FORMATS[2])
    other, plain = packed(drawn(8, 64), FORMATS[3]), drawn(8, 64)
    x = drawn(3, 64)
    one = joined([first, second])
    assert isinstance(one, Packed)
    apart = joined([first, other, plain])
    assert isinstance(apart, Joined)
    for whole, parts in ((one, [first, second]), (apart, [first, other, plain])):
        expected = mx.concatenate([product(x, part) for part in parts], axis=-1)
        assert near(product(x, whole), expected)
    assert isinstance(joined([plain, plain]), mx.array)
    assert stacked([first, other]) is None
    assert stacked([first, first]).codes.shape == (2, 8, 8)
    assert has_packed((plain, apart))
    assert not has_packed((plain, None))


def test_half_precision_rows_give_half_precision():
    weight = packed(drawn(24, 128), FORMATS[3], mx.bfloat16)
    assert product(drawn(5, 128).astype(mx.bfloat16), weight).dtype == mx.bfloat16
    assert unpacked(weight).dtype == mx.bfloat16
