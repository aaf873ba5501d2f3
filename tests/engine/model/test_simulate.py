"""The rounding of KV rows (FP8) and index rows (FP4) against a plain numpy statement: blocks of one
power-of-two scale, the nearest of a table of all the format's values, ties to the even code."""

import dataclasses

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.model.prefill import prefill
from ds4_agent.engine.model.simulate import hadamard, round_index, round_kv

ROPE = 32


def e4m3_values():
    """The non-negative values of e4m3fn by code: 4 bits of exponent, 3 of mantissa, no infinity."""
    codes = np.arange(127)  # 127 is not a number
    exponent, mantissa = codes >> 3, codes & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal)


E4M3 = e4m3_values()
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def nearest(x, values):
    """Each of `x` float64 to the nearest of `values`, a tie to the even code; the sign kept."""
    above = np.clip(np.searchsorted(values, np.abs(x)), 1, len(values) - 1)
    low, high = values[above - 1], values[above]
    down, up = np.abs(x) - low, high - np.abs(x)
    takes_high = (up < down) | ((up == down) & (above % 2 == 0))
    return np.copysign(np.where(takes_high, high, low), x)


def in_blocks(x, size, floor, largest, values):
    """s = 2^ceil(log2(max(amax, floor) / largest)); nearest(x / s) * s, for blocks of `size`."""
    blocks = x.astype(np.float64).reshape(*x.shape[:-1], -1, size)
    amax = np.maximum(np.abs(blocks).max(axis=-1, keepdims=True), floor)
    scale = 2.0 ** np.ceil(np.log2(amax / largest))
    return (nearest(blocks / scale, values) * scale).reshape(x.shape).astype(np.float32)


def plain_kv(x, rope):
    return np.concatenate(
        [in_blocks(x[..., :-rope], 64, 1e-4, 448.0, E4M3), x[..., -rope:]], axis=-1
    )


def plain_index(x):
    return in_blocks(x, 32, 7.05e-38, 6.0, E2M1)


def rows_of_many_sizes(width, smallest, largest):
    """Rows of magnitudes from 10^smallest to 10^largest, some zero, some with one outlier."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((400, width)) * 10.0 ** rng.uniform(smallest, largest, (400, 1))
    x[::40] = 0
    x[5::40, 3] *= 300
    return x.astype(np.float32)


@pytest.fixture(params=[mx.array, np.array], ids=["mlx", "numpy"])
def array(request):
    """An array of either library that the engine computes in."""
    return request.param


def test_the_table_is_that_of_the_format():
    assert len(E4M3) == 127
    assert E4M3[-1] == 448
    assert E4M3[1] == 2.0**-9
    assert (np.diff(E4M3) > 0).all()


def test_kv_rows_are_rounded_to_fp8_but_for_the_rotated_channels(array):
    x = rows_of_many_sizes(448 + ROPE, -7, 5)

    assert np.array_equal(np.array(round_kv(array(x), ROPE)), plain_kv(x, ROPE))


def test_ties_of_fp8_go_to_the_even_code(array):
    between = (E4M3[:-1] + E4M3[1:]) / 2
    x = np.concatenate([between[63:126], [448.0], np.zeros(ROPE)]).astype(np.float32)[None]

    assert np.array_equal(np.array(round_kv(array(x), ROPE)), plain_kv(x, ROPE))


def test_values_of_fp8_stay_what_they_are(array):
    values = np.concatenate([E4M3[62:126], np.zeros(ROPE)]).astype(np.float32)[None]

    assert np.array_equal(np.array(round_kv(array(values), ROPE)), values)


@pytest.mark.parametrize("size", [32, 128])
def test_index_rows_are_rounded_to_fp4(array, size):
    """Without the rotation, whose sums round differently in numpy."""
    x = rows_of_many_sizes(size, -7, 5)

    found = round_index(array(x), array(np.eye(size, dtype=np.float32)))

    assert np.array_equal(np.array(found), plain_index(x))


def test_ties_of_fp4_go_to_the_even_code(array):
    ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0]
    x = np.array([ties + [-t for t in ties] + [0.0] * 16], dtype=np.float32)

    found = np.array(round_index(array(x), array(np.eye(32, dtype=np.float32))))[0, :8]

    assert found.tolist() == [0, 1, 1, 2, 2, 4, 4, 6]


@pytest.mark.parametrize("size", [1, 2, 32, 128])
def test_the_rotation_is_sylvesters_hadamard_matrix(size):
    """Entry (i, j) is -1 to the number of ones that i and j share, over the root of the size."""
    shared = np.arange(size)[:, None] & np.arange(size)
    signs = (-1.0) ** np.vectorize(lambda n: n.bit_count())(shared)

    found = np.array(hadamard(size))

    assert np.array_equal(found, (signs / np.sqrt(size)).astype(np.float32))
    np.testing.assert_allclose(found @ found.T, np.eye(size), atol=1e-6)


def test_index_rows_are_rotated_first(array):
    x = np.random.default_rng(3).standard_normal((300, 128)).astype(np.float32)
    signs = np.array(hadamard(128), dtype=np.float64)

    found = np.array(round_index(array(x), array(np.array(hadamard(128)))))

    # A sum that falls within fp32 noise of a tie may go either way.
    assert (found != plain_index(x @ signs)).mean() < 1e-3


@pytest.fixture(scope="module")
def directory(tiny, tmp_path_factory):
    """A model whose heads are wide enough for the blocks of the formats."""
    config = {
        **tiny.MODELS["mixed"],
        "head_dim": 64 + ROPE,
        "index_head_dim": 32,
        "partial_rotary_factor": ROPE / (64 + ROPE),
    }
    return tiny.write_checkpoint(
        tmp_path_factory.mktemp("simulated"), config, tiny.weights(config, 1)
    )


def run(directory, **options):
    from ds4_agent.engine.weights.checkpoint import load_model

    model = load_model(directory, dtype=mx.float32, **options)
    tokens = np.random.default_rng(2).integers(0, 97, 300).tolist()
    return prefill(model, tokens, model.init_state(), chunk=128)


def test_a_model_with_the_switch_stores_rows_that_the_formats_hold(directory):
    _, state = run(directory, kv_simulation=True)

    for layer in state.layers:
        for rows in (layer.window, *(layer.rows.blocks() if layer.rows else ())):
            assert np.array_equal(np.array(rows), plain_kv(np.array(rows), ROPE))
        for keys in layer.index_rows.blocks() if layer.index_rows else ():
            assert np.array_equal(np.array(keys), plain_index(np.array(keys)))


def test_the_switch_is_off_unless_asked_for(directory):
    logits, state = run(directory)
    simulated, _ = run(directory, kv_simulation=True)

    window = np.array(state.layers[0].window)
    assert not np.array_equal(window, plain_kv(window, ROPE))
    difference = np.abs(np.array(logits) - np.array(simulated)).max()
    assert 1e-4 < difference < 2  # it rounds; it does not become another model


def test_heads_that_do_not_fit_the_blocks_are_refused(mixed):
    with pytest.raises(ModelFormatError, match="kv_simulation needs"):
        dataclasses.replace(mixed.model.config, kv_simulation=True)
