"""Rows as bytes. In: rows of a state as raw bits. Out: the same bits in fewer bytes where the rows
were rounded to FP8 or FP4 (`model/simulate.py`), else as they are. Packing proves itself: what
would not come back bit for bit is left raw, so that whoever unpacks never gets another value.

    raw    the rows
    fp8    e4m3 of all but the `roped` channels, 1 byte each; a power-of-two scale for each 64
           (ue8m0, 1 byte); the `roped` channels raw. 448 + 7 + 128 bytes a row of V4 Flash in bf16
    fp4    e2m1, 2 in a byte, the first in the low bits; a scale for each 32. 64 + 4 bytes a row
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.simulate import INDEX_BLOCK, KV_BLOCK

__all__ = ["Bits", "Bytes", "Form", "pack", "packed_bytes", "unpack"]

Bits = NDArray[Any]  # [rows, width] unsigned, of the size of the dtype: nothing rounds these
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Form:
    """What is known of an array's rows without looking at them."""

    width: int
    dtype: str  # float32, bfloat16, float16
    rounding: Literal["", "fp8", "fp4"] = ""
    roped: int = 0  # the last channels of an fp8 row, which are not rounded

    @property
    def bits(self) -> np.dtype[Any]:
        """The numpy dtype of the raw bits, little-endian."""
        return np.dtype("<u4" if self.dtype == "float32" else "<u2")


def pack(rows: Bits, form: Form) -> tuple[bool, list[NDArray[Any]]]:
    """(whether packed, the arrays to write one behind the other) of rows [n, width]."""
    if form.rounding and len(rows):
        with np.errstate(all="ignore"):  # of rows that are no such numbers, which the proof rejects
            parts = _packed(rows, form)
            data = np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])
            back = np.empty_like(rows)
            unpack(data, len(rows), form, is_packed=True, start=0, out=back)
        if np.array_equal(back, rows):
            return True, [data]
    return False, [np.ascontiguousarray(rows)]


def packed_bytes(rows: int, form: Form, *, is_packed: bool) -> int:
    """Bytes that so many rows take."""
    if not is_packed:
        return rows * form.width * form.bits.itemsize
    if form.rounding == "fp4":
        return rows * (form.width // 2 + form.width // INDEX_BLOCK)
    plain = form.width - form.roped
    return rows * (plain + plain // KV_BLOCK + form.roped * form.bits.itemsize)


def unpack(data: Bytes, rows: int, form: Form, *, is_packed: bool, start: int, out: Bits) -> None:
    """Write rows start..start+len(out)-1 of the `rows` that `data` holds into `out` [n, width]."""
    stop = start + len(out)
    if not len(out):
        return
    if not is_packed:
        out[:] = data.view(form.bits).reshape(rows, form.width)[start:stop]
        return
    if form.rounding == "fp4":
        codes, scales = _split(data, rows, form.width // 2, form.width // INDEX_BLOCK)
        out[:] = _decoded(codes[start:stop], scales[start:stop], form).view(form.bits)
        return
    plain = form.width - form.roped
    codes, scales, roped = _split(data, rows, plain, plain // KV_BLOCK, form.roped, form=form)
    out[:, :plain] = _decoded(codes[start:stop], scales[start:stop], form)
    out[:, plain:] = roped[start:stop]


def _decoded(codes: Bytes, scales: Bytes, form: Form) -> NDArray[Any]:
    """What each byte of `codes` [n, width] stands for under its scale: looked up, not computed."""
    blocks = codes.reshape(*scales.shape, -1)
    found: NDArray[Any] = _values(form.rounding, form.dtype)[
        scales.astype(np.uint16)[..., None] << 8 | blocks
    ]
    return found.reshape(codes.shape)


@cache
def _values(rounding: str, dtype: str) -> NDArray[Any]:
    """[scale * 256 + code]: the bits of a byte's value; of fp4 both values, side by side."""
    codes = _E2M1_PAIRS if rounding == "fp4" else _E4M3[:, None]  # [256, values in a byte]
    with np.errstate(all="ignore"):  # of scales that no such number has
        bits = _to_bits(_SCALES[:, None, None] * codes, Form(codes.shape[1], dtype))
    return bits.reshape(-1, codes.shape[1]).view(f"<u{bits.itemsize * codes.shape[1]}").reshape(-1)


def _packed(rows: Bits, form: Form) -> list[NDArray[Any]]:
    if form.rounding == "fp4":
        codes, scales = _encoded(_to_floats(rows, form), INDEX_BLOCK, _E2M1_TOP, _e2m1)
        return [codes[:, ::2] | (codes[:, 1::2] << 4), scales]
    plain = form.width - form.roped
    codes, scales = _encoded(_to_floats(rows[:, :plain], form), KV_BLOCK, _E4M3_TOP, _e4m3)
    return [codes, scales, np.ascontiguousarray(rows[:, plain:])]


def _split(data: Bytes, rows: int, *widths: int, form: Form | None = None) -> list[NDArray[Any]]:
    """The arrays [rows, width] of a packed part; the third, if any, is of raw bits."""
    arrays: list[NDArray[Any]] = []
    at = 0
    for index, width in enumerate(widths):
        kind = form.bits if form is not None and index == 2 else np.dtype(np.uint8)
        size = rows * width * kind.itemsize
        arrays.append(data[at : at + size].view(kind).reshape(rows, width))
        at += size
    return arrays


# The largest value of a format, 1.75 * 2^8 and 1.5 * 2^2: its exponent, its mantissa in fp32 bits.
_E4M3_TOP = (8, 0x600000)
_E2M1_TOP = (2, 0x400000)


def _encoded(
    values: NDArray[np.float32], block: int, top: tuple[int, int], code: Any
) -> tuple[Bytes, Bytes]:
    """(codes [n, width] with the sign above them, scales [n, width / block]) of values [n, width].

    The scale is the least under which the largest value fits. That need not be the one they were
    rounded with, but a number of either format, doubled and still in range, is one of it too.
    """
    blocks = values.reshape(len(values), -1, block)
    largest = np.abs(blocks).max(axis=-1).view(np.uint32)
    exponent = (largest >> 23).astype(np.int32) - top[0] + ((largest & 0x7FFFFF) > top[1])
    scales = np.where(largest == 0, 127, np.clip(exponent, 0, 254)).astype(np.uint8)
    codes = code(blocks / _SCALES[scales][..., None])
    return codes.reshape(values.shape), scales


def _e4m3(q: NDArray[np.float32]) -> Bytes:
    size = np.abs(q)
    normal = (size.view(np.uint32) >> 20).astype(np.int32) - (120 << 3)
    codes = np.where(size < 2.0**-6, (size * 512).astype(np.int32), normal)
    return np.clip(codes, 0, 126).astype(np.uint8) | (np.signbit(q) * np.uint8(1 << 7))


def _e2m1(q: NDArray[np.float32]) -> Bytes:
    size = np.abs(q)
    normal = (size.view(np.uint32) >> 22).astype(np.int32) - (126 << 1)
    codes = np.where(size < 1, (size * 2).astype(np.int32), normal)
    return np.clip(codes, 0, 7).astype(np.uint8) | (np.signbit(q) * np.uint8(1 << 3))


def _to_floats(bits: Bits, form: Form) -> NDArray[np.float32]:
    if form.dtype == "float32":
        return np.ascontiguousarray(bits).view(np.float32)
    if form.dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(bits).view(np.float16).astype(np.float32)


def _to_bits(values: NDArray[np.float32], form: Form) -> Bits:
    if form.dtype == "float32":
        return values.view(np.uint32)
    if form.dtype == "bfloat16":  # of values it can hold: nothing is cut off
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float16).view(np.uint16)


def _e4m3_values() -> NDArray[np.float32]:
    """The value of each byte; the two that are no numbers are never written."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    sizes = np.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    return np.where(codes < 128, sizes, -sizes).astype(np.float32)


def _e2m1_pairs() -> NDArray[np.float32]:
    """[256, 2]: the two values of each byte."""
    sizes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    values, codes = np.concatenate([sizes, -sizes]), np.arange(256)
    return np.stack([values[codes & 15], values[codes >> 4]], axis=1)


_E4M3 = _e4m3_values()
_E2M1_PAIRS = _e2m1_pairs()
_SCALES = np.append(np.ldexp(np.float32(1), np.arange(-127, 128)), np.float32(np.inf))
