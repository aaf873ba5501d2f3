"""Packed rows come back bit for bit: those that the real rounding makes, those at the ends of the
formats, and those that fit neither, which stay raw."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.kvstore.packing import Form, pack, packed_bytes, unpack
from ds4_agent.engine.model.simulate import hadamard, round_index, round_kv

DTYPES = ("float32", "bfloat16", "float16")
ROPE = 64


def rows_of_many_sizes(width, seed=7):
    """Rows of magnitudes from 10^-7 to 10^4, some zero, some with an outlier, some -0."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((400, width)) * 10.0 ** rng.uniform(-7, 4, (400, 1))
    x[::40] = 0
    x[1::40] = -0.0
    x[5::40, 3] *= 300
    return x.astype(np.float32)


def bits(array, dtype):
    """An fp32 array as the bits of a dtype, as a state holds it."""
    cast = mx.array(array).astype(getattr(mx, dtype))
    raw = cast.view(mx.uint32 if dtype == "float32" else mx.uint16)
    return np.array(raw)


def back(packed, arrays, rows, form, start=0, stop=None):
    data = np.concatenate([a.reshape(-1).view(np.uint8) for a in arrays])
    assert len(data) == packed_bytes(rows, form, is_packed=packed)
    out = np.empty(((rows if stop is None else stop) - start, form.width), form.bits)
    unpack(data, rows, form, is_packed=packed, start=start, out=out)
    return out


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("seed", range(5))
def test_rounded_rows_are_packed_and_come_back(dtype, seed):
    x = round_kv(rows_of_many_sizes(448 + ROPE, seed), ROPE)
    form = Form(448 + ROPE, dtype, "fp8", ROPE)
    rows = bits(x, dtype)

    packed, arrays = pack(rows, form)

    assert packed
    assert packed_bytes(1, form, is_packed=True) == 448 + 7 + ROPE * form.bits.itemsize
    assert np.array_equal(back(packed, arrays, len(rows), form), rows)


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("seed", range(5))
def test_rounded_index_rows_are_packed_and_come_back(dtype, seed):
    x = round_index(rows_of_many_sizes(128, seed), np.array(hadamard(128)))
    form = Form(128, dtype, "fp4")
    rows = bits(x, dtype)

    packed, arrays = pack(rows, form)

    assert packed
    assert packed_bytes(1, form, is_packed=True) == 64 + 4
    assert np.array_equal(back(packed, arrays, len(rows), form), rows)


@pytest.mark.parametrize("rounding", ["fp8", "fp4"])
@pytest.mark.parametrize("exponent", [-40, -3, 0, 5, 60])
def test_every_value_of_the_format_comes_back(rounding, exponent):
    """Under its largest value, and under each smaller one, as the scale is found anew."""
    if rounding == "fp8":
        codes = np.arange(127)
        e, m = codes >> 3, codes & 7
        values = np.where(e == 0, m * 2.0**-9, (1 + m / 8) * 2.0 ** (e - 7.0))
        block, form = 64, Form(64 + 2, "float32", "fp8", 2)
    else:
        values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
        block, form = 32, Form(32, "float32", "fp4")
    rows = []
    for top in range(1, len(values)):
        inner = np.resize(values[: top + 1], block) * np.resize([1, -1, -1], block)
        inner[0] = values[top]
        rows.append(np.append(inner, [0.1] * form.roped) * 2.0**exponent)
    rows = bits(np.array(rows, np.float32), "float32")

    packed, arrays = pack(rows, form)

    assert packed
    assert np.array_equal(back(packed, arrays, len(rows), form), rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ["fp8", "fp4"])
def test_rows_that_fit_no_format_stay_raw(dtype, rounding):
    rng = np.random.default_rng(1)
    form = Form(128, dtype, rounding, 64 if rounding == "fp8" else 0)
    odd = rng.integers(0, 1 << 16, (50, 128)).astype(form.bits)  # NaN and infinity among them

    packed, arrays = pack(odd, form)

    assert not packed
    assert np.array_equal(back(packed, arrays, 50, form), odd)


def test_one_odd_channel_is_not_lost():
    x = np.array(round_kv(rows_of_many_sizes(64 + ROPE), ROPE))
    x[17, 5] = np.nextafter(np.float32(1), np.float32(2))
    form = Form(64 + ROPE, "float32", "fp8", ROPE)

    packed, arrays = pack(x.view(np.uint32), form)

    assert not packed
    assert np.array_equal(back(packed, arrays, len(x), form), x.view(np.uint32))


@pytest.mark.parametrize("form", [
    Form(64 + ROPE, "bfloat16", "fp8", ROPE), Form(64, "float32", "fp4"), Form(48, "bfloat16")
])  # fmt: skip
def test_some_of_the_rows_can_be_had(form):
    x = rows_of_many_sizes(form.width)
    if form.rounding == "fp8":
        x = round_kv(x, ROPE)
    elif form.rounding == "fp4":
        x = round_index(x, np.eye(64, dtype=np.float32))
    rows = bits(np.array(x), form.dtype)

    packed, arrays = pack(rows, form)

    assert packed == bool(form.rounding)
    assert np.array_equal(back(packed, arrays, len(rows), form, 100, 117), rows[100:117])


def test_no_rows_take_no_bytes():
    form = Form(128, "bfloat16", "fp4")
    packed, arrays = pack(np.empty((0, 128), form.bits), form)

    assert sum(array.nbytes for array in arrays) == 0
    assert back(packed, arrays, 0, form).shape == (0, 128)


def test_a_token_of_v4_flash_takes_3508_bytes_packed():
    """21 CSA and 20 HCA layers, rows of 448 + 64 channels in bf16, index rows of 128."""
    row, index = Form(512, "bfloat16", "fp8", 64), Form(128, "bfloat16", "fp4")

    csa = packed_bytes(1, row, is_packed=True) + packed_bytes(1, index, is_packed=True)
    hca = packed_bytes(1, row, is_packed=True)

    assert round(21 * csa / 4 + 20 * hca / 128) == 3509
