"""Official FP8 and FP4 bytes unpacked, against MLX's own decoders of the same formats."""

import mlx.core as mx
import numpy as np

from ds4_agent.engine.weights.official_formats import dequantise_fp4, dequantise_fp8


def test_every_e4m3_code_is_what_mlx_reads() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(1, 256)
    codes = np.where((codes & 127) == 127, 0, codes).astype(np.uint8)  # NaN compares with nothing
    ours = dequantise_fp8(codes, np.array([[127, 127]], dtype=np.uint8))
    assert np.array_equal(ours, np.array(mx.from_fp8(mx.array(codes), dtype=mx.float32)))


def test_nan_codes_stay_nan() -> None:
    codes = np.array([[127, 255, 56]], dtype=np.uint8)
    values = dequantise_fp8(codes, np.array([[127]], dtype=np.uint8))
    assert np.isnan(values[0, :2]).all()
    assert values[0, 2] == 1
    one = np.array([[56]], dtype=np.uint8)
    assert np.isnan(dequantise_fp8(one, np.array([[255]], dtype=np.uint8))).all()


def test_fp8_scales_cover_128_square_blocks_and_the_edges() -> None:
    codes = np.full((130, 200), 56, dtype=np.uint8)  # 1.0
    values = dequantise_fp8(codes, np.array([[127, 128], [126, 130]], dtype=np.uint8))
    assert values.shape == (130, 200)
    quarters = [values[:128, :128], values[:128, 128:], values[128:, :128], values[128:, 128:]]
    assert [np.unique(quarter).tolist() for quarter in quarters] == [[1], [2], [0.5], [8]]


def test_fp4_is_mxfp4_bit_for_bit_low_half_first() -> None:
    random = np.random.default_rng(3)
    codes = random.integers(0, 256, (16, 64), dtype=np.uint8)
    scale = random.integers(100, 150, (16, 4), dtype=np.uint8)
    packed = mx.array(np.ascontiguousarray(codes).view(np.uint32))
    theirs = mx.dequantize(
        packed, mx.array(scale), group_size=32, bits=4, mode="mxfp4", dtype=mx.float32
    )
    assert np.array_equal(dequantise_fp4(codes, scale), np.array(theirs))
    first = dequantise_fp4(np.full((1, 16), 0xA1, dtype=np.uint8), np.array([[127]], np.uint8))
    assert first[0, :2].tolist() == [0.5, -1.0]


def test_fp8_blocks_repeated_by_row_are_mxfp8_bit_for_bit() -> None:
    """A block's scale, given to each of its rows and groups of 32, is MLX's mxfp8: no rounding."""
    random = np.random.default_rng(4)
    codes = random.integers(0, 127, (130, 256), dtype=np.uint8)
    scale = random.integers(100, 140, (2, 2), dtype=np.uint8)
    spread = scale.repeat(128, axis=0)[:130].repeat(4, axis=1)
    theirs = mx.dequantize(
        mx.array(codes.view(np.uint32)),
        mx.array(spread),
        group_size=32,
        bits=8,
        mode="mxfp8",
        dtype=mx.float32,
    )
    assert np.array_equal(dequantise_fp8(codes, scale), np.array(theirs))
