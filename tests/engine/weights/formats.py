"""The number formats of published checkpoints in plain numpy, written from their definitions and
using neither MLX nor the engine: what a tensor's bytes are, and the values they stand for. The same
bits on every machine."""

import numpy as np

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
FP4_MAX, FP8_MAX = 6.0, 448.0


def _e4m3():
    """Values of the codes 0..126: 4 bits of exponent with bias 7, 3 of mantissa; 127 is NaN."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    values = np.where(exponent, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
    return values.astype(np.float32)


E4M3 = _e4m3()


def bf16_of(values):
    """(bits uint16, the values they stand for), to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return bits.astype(np.uint16), (bits << 16).astype(np.uint32).view(np.float32)


def nearest(values, table, sign):
    """Codes of the nearest entries of the ascending `table`, with the bit `sign` for negatives."""
    middles = (table[1:] + table[:-1]) / 2
    codes = np.searchsorted(middles, np.abs(values)).astype(np.uint8)
    return np.where(np.signbit(values), codes | sign, codes)


def fp8_values(codes):
    return np.concatenate([E4M3, [np.nan], -E4M3, [np.nan]]).astype(np.float32)[codes]


def fp4_values(codes):
    return np.concatenate([E2M1, -E2M1])[codes]


def power_of_two(largest, most):
    """ue8m0 codes of the least powers of two that bring `largest` down to `most`."""
    fraction, exponent = np.frexp(largest / np.float32(most))
    return (exponent - (fraction == 0.5) + 127).astype(np.uint8)


def powers(codes):
    """The values of ue8m0 codes."""
    return np.ldexp(np.float32(1), codes.astype(np.int32) - 127)


def packed_bits(codes, bits):
    """Codes [..., k], each of so many bits, as one stream with the lowest bit first: [..., words]
    uint32. Of four bits that is two values a byte, the low half first."""
    planes = np.unpackbits(codes[..., None].astype(np.uint8), axis=-1, bitorder="little")
    stream = planes[..., :bits].reshape(*codes.shape[:-1], -1)
    return np.packbits(stream, axis=-1, bitorder="little").view(np.uint32)


def fp8_blocks(tensor):
    """DeepSeek's FP8: (e4m3 codes, the ue8m0 scale of each 128 x 128 block, the values)."""
    rows, columns = tensor.shape
    blocks = (-(-rows // 128), -(-columns // 128))
    padded = np.zeros((blocks[0] * 128, blocks[1] * 128), np.float32)
    padded[:rows, :columns] = np.abs(tensor)
    scale = power_of_two(padded.reshape(blocks[0], 128, blocks[1], 128).max(axis=(1, 3)), FP8_MAX)
    each = powers(scale).repeat(128, 0)[:rows].repeat(128, 1)[:, :columns]
    codes = nearest(tensor / each, E4M3, 128)
    return codes, scale, fp8_values(codes) * each


def fp4_groups(tensor):
    """DeepSeek's FP4: (two e2m1 a byte int8, the ue8m0 scale of each 32 of a row, the values)."""
    words, scales, _, values = quantised(tensor, "mxfp4", 4, 32)
    return words.view(np.int8), scales, values


def quantised(tensor, mode, bits, group_size):
    """A matrix [..., k] in one of MLX's modes: (words uint32, scales, biases or None, values).
    Scales and biases of affine codes are bits of bf16, all other scales are bytes."""
    groups = tensor.reshape(*tensor.shape[:-1], -1, group_size)
    if mode == "affine":
        low, high = groups.min(-1), groups.max(-1)
        scales, steps = bf16_of((high - low) / (2**bits - 1))
        biases, least = bf16_of(low)
        codes = np.rint((groups - least[..., None]) / steps[..., None]).clip(0, 2**bits - 1)
        values = codes.astype(np.float32) * steps[..., None] + least[..., None]
    else:
        biases, largest = None, np.abs(groups).max(-1)
        if mode == "nvfp4":  # scales are e4m3 themselves
            scales = nearest(largest / FP4_MAX, E4M3, 128)
            steps = fp8_values(scales)
        else:
            scales = power_of_two(largest, FP8_MAX if mode == "mxfp8" else FP4_MAX)
            steps = powers(scales)
        table, read = (E4M3, fp8_values) if mode == "mxfp8" else (E2M1, fp4_values)
        codes = nearest(groups / steps[..., None], table, 1 << (bits - 1))
        values = read(codes) * steps[..., None]
    words = packed_bits(codes.reshape(tensor.shape), bits)
    return words, scales, biases, values.astype(np.float32).reshape(tensor.shape)
