"""The formats in which a checkpoint stores quantised weights, told from the tensors alone: config
files are often wrong about them. In: dtypes and shapes. Out: an MLX mode, its bits and group size,
or None. DeepSeek's own FP8 and FP4 are MLX's mxfp8 and mxfp4 with another arrangement of scales.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PackedFormat", "codebook_tensor", "format_of"]

_AFFINE_BITS, _AFFINE_GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)
# Group size and bits of the modes whose scales are bytes.
_FLOAT_MODES = {(32, 4): "mxfp4", (32, 8): "mxfp8", (16, 4): "nvfp4"}
# How the tensors of codebook formats end (JANGTQ, AXQ, GPTQ, AWQ): MLX has no product for them.
_CODEBOOK_ENDS = (
    ".tq_packed", ".tq_norms", ".tq_bits", ".codebook", ".codebooks", ".centroids", ".lut",
    ".qweight", ".qzeros", ".g_idx",
)  # fmt: skip


@dataclass(frozen=True)
class PackedFormat:
    """One of MLX's quantised modes."""

    mode: str
    bits: int
    group_size: int


def format_of(
    columns: int, packed_columns: int, groups: int, *, scales_dtype: str, has_biases: bool
) -> PackedFormat | None:
    """The format of rows of `columns` values in `packed_columns` words of 32 bits and `groups`
    scales; None for what is none of MLX's."""
    if not groups or columns % groups or packed_columns * 32 % columns:
        return None
    group, bits = columns // groups, packed_columns * 32 // columns
    if scales_dtype == "U8":
        mode = _FLOAT_MODES.get((group, bits))
        return None if mode is None or has_biases else PackedFormat(mode, bits, group)
    if bits in _AFFINE_BITS and group in _AFFINE_GROUPS and has_biases:
        return PackedFormat("affine", bits, group)
    return None


def codebook_tensor(names: Iterable[str]) -> str | None:
    """The first of `names` that only a codebook format has."""
    return next((name for name in names if name.endswith(_CODEBOOK_ENDS)), None)
