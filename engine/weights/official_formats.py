"""The two packed formats of DeepSeek's own files, unpacked. In: the stored bytes and their ue8m0
scales. Out: fp32 numpy arrays, exact: every value is a few bits times a power of two. It reads no
file and knows no tensor name.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "FP4_GROUP", "dequantise_fp4", "dequantise_fp8"]

BLOCK = 128  # an FP8 scale covers BLOCK x BLOCK values, less at the edges
FP4_GROUP = 32  # an FP4 scale covers FP4_GROUP values of one row

_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)
_FP4 = np.concatenate([_E2M1, -_E2M1])


def _e4m3_table() -> NDArray[np.float32]:
    """The value of each of the 256 codes; the two NaN codes are NaN, infinities do not exist."""
    codes = np.arange(128)
    exponent, mantissa = codes >> 3, codes & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    values = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal)
    values[127] = np.nan
    return np.concatenate([values, -values]).astype(np.float32)


_FP8 = _e4m3_table()
_E8M0 = np.append(np.ldexp(1.0, np.arange(-127, 128)), np.nan).astype(np.float32)


def _powers(scale: NDArray[np.uint8]) -> NDArray[np.float32]:
    """ue8m0: two to the code less 127; code 255 is NaN."""
    powers: NDArray[np.float32] = _E8M0[scale]
    return powers


def dequantise_fp8(codes: NDArray[np.uint8], scale: NDArray[np.uint8]) -> NDArray[np.float32]:
    """e4m3 `codes` [rows, columns] with `scale` [ceil(rows / 128), ceil(columns / 128)]."""
    rows, columns = codes.shape
    powers = _powers(scale).repeat(BLOCK, axis=0)[:rows].repeat(BLOCK, axis=1)[:, :columns]
    return _FP8[codes] * powers


def dequantise_fp4(codes: NDArray[np.uint8], scale: NDArray[np.uint8]) -> NDArray[np.float32]:
    """e2m1 `codes` [rows, columns / 2], two a byte and the low half first, with `scale`
    [rows, columns / 32]. Gives [rows, columns]."""
    values = _FP4[np.stack([codes & 15, codes >> 4], axis=-1)].reshape(codes.shape[0], -1)
    return values * _powers(scale).repeat(FP4_GROUP, axis=1)
