"""Weights that stay quantised in memory, and the products with weights of any kind. In: rows and a
weight, which is an array, `Packed` codes, several of them, `Joined`, or one whose inputs are
`Observed`. Out: rows times the weight, transposed. Everything packed is of MLX; it reads no file
and quantises nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeAlias

import mlx.core as mx

from ds4_agent.engine.model.arrays import Array, library

__all__ = [
    "Joined", "Observed", "Packed", "See", "Weight", "expert_of", "gathered_product", "grouped",
    "has_packed", "joined", "product", "rows_of", "stacked", "unpacked",
]  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """A matrix [..., m, k] in one of MLX's quantised modes, bit for bit as it was stored."""

    codes: mx.array  # [..., m, k * bits / 32] uint32
    scales: mx.array  # [..., m, k / group_size]; affine: `dtype`, otherwise uint8
    biases: mx.array | None  # like scales; affine only
    mode: str  # affine, mxfp4, mxfp8 or nvfp4
    bits: int
    group_size: int
    dtype: mx.Dtype  # of the rows it is multiplied with and of the product

    @property
    def format(self) -> tuple[str, int, int]:
        return self.mode, self.bits, self.group_size

    @property
    def settings(self) -> dict[str, Any]:
        """What MLX's operations want to know beside the arrays."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def mapped(self, change: Callable[[mx.array], mx.array]) -> "Packed":
        """The same format with each of the arrays changed."""
        biases = None if self.biases is None else change(self.biases)
        return replace(self, codes=change(self.codes), scales=change(self.scales), biases=biases)


@dataclass(frozen=True)
class Joined:
    """Weights of one input, one below the other, that no single array holds: formats differ."""

    parts: tuple[Any, ...]  # arrays and Packed, each [..., m, k] with its own m

    @property
    def dtype(self) -> mx.Dtype:
        dtype: mx.Dtype = self.parts[0].dtype
        return dtype


# Is shown the rows [..., n, k] of a product before it is made, and whose matrix they meet: None of
# a weight that is one, the number of an expert, or, where MLX gathers, experts [...]. Parts of a
# chunk call it from several threads at once.
See: TypeAlias = Callable[[Array, Any], None]


@dataclass(frozen=True)
class Observed:
    """A weight every product of which is shown to somebody: calibration, tests."""

    weight: Any  # any other Weight
    see: See

    @property
    def dtype(self) -> Any:
        return self.weight.dtype


Weight: TypeAlias = Any  # Array, Packed, Joined or Observed


def product(x: Array, weight: Weight) -> Array:
    """x [..., k] times the matrix [m, k] transposed: [..., m]. Matrices [b, m, k] meet rows
    [..., b, n, k] one by one."""
    if isinstance(weight, Packed):
        return mx.quantized_matmul(
            x, weight.codes, weight.scales, weight.biases, transpose=True, **weight.settings
        )
    if isinstance(weight, Joined):
        parts = [product(x, part) for part in weight.parts]
        return library(x).concatenate(parts, axis=-1)
    if isinstance(weight, Observed):
        weight.see(x, None)
        return product(x, weight.weight)
    return x @ (weight.T if weight.ndim == 2 else weight.swapaxes(-1, -2))


def gathered_product(
    x: mx.array, weight: Weight, experts: mx.array, *, sorted_indices: bool = False
) -> mx.array:
    """x [..., n, k] times the matrix of each of `experts` among [experts, m, k]: [..., n, m]."""
    if isinstance(weight, Packed):
        return mx.gather_qmm(
            x,
            weight.codes,
            weight.scales,
            weight.biases,
            rhs_indices=experts,
            transpose=True,
            sorted_indices=sorted_indices,
            **weight.settings,
        )
    if isinstance(weight, Joined):
        parts = [
            gathered_product(x, part, experts, sorted_indices=sorted_indices)
            for part in weight.parts
        ]
        return mx.concatenate(parts, axis=-1)
    if isinstance(weight, Observed):
        weight.see(x, experts)
        return gathered_product(x, weight.weight, experts, sorted_indices=sorted_indices)
    return mx.gather_mm(
        x, weight.swapaxes(1, 2), rhs_indices=experts, sorted_indices=sorted_indices
    )


def expert_of(weight: Weight, expert: int) -> Weight:
    """One matrix [m, k] of [experts, m, k], as a view."""
    if isinstance(weight, Packed):
        return weight.mapped(lambda array: expert_of(array, expert))
    if isinstance(weight, Joined):
        return Joined(tuple(expert_of(part, expert) for part in weight.parts))
    if isinstance(weight, Observed):
        see = weight.see
        return Observed(expert_of(weight.weight, expert), lambda rows, _: see(rows, expert))
    # A slice is a view; MLX would gather, and so copy, the matrix of a single index.
    return weight[expert : expert + 1].reshape(weight.shape[1:])


def rows_of(weight: Weight, ids: Array) -> Array:
    """Rows [..., k] of the matrix [m, k] by number, as an embedding is read."""
    if isinstance(weight, Packed):
        return unpacked(weight.mapped(lambda array: array[ids]))
    return weight[ids]


def grouped(weight: Weight, groups: int) -> Weight:
    """[groups * m, k] as [groups, m, k]."""
    if isinstance(weight, Packed):
        return weight.mapped(lambda array: grouped(array, groups))
    return weight.reshape(groups, -1, weight.shape[-1])


def joined(parts: Sequence[Weight]) -> Weight:
    """Weights [..., m, k] of one input below each other, in one array where they are alike."""
    whole = _combined(parts, lambda arrays: mx.concatenate(arrays, axis=-2))
    return Joined(tuple(parts)) if whole is None else whole


def stacked(parts: Sequence[Weight]) -> Weight | None:
    """Matrices [m, k] as one [parts, m, k]; None if their formats differ."""
    return _combined(parts, mx.stack)


def unpacked(weight: Packed) -> mx.array:
    """The matrix itself, in the weight's dtype."""
    return mx.dequantize(
        weight.codes, weight.scales, weight.biases, dtype=weight.dtype, **weight.settings
    )


def has_packed(tree: Any) -> bool:
    """Whether anything of a tree of frozen weights is packed."""
    if isinstance(tree, Packed):
        return True
    if isinstance(tree, tuple):
        return any(has_packed(item) for item in tree)
    if is_dataclass(tree):
        return any(has_packed(getattr(tree, field.name)) for field in fields(tree))
    return False


def _combined(
    parts: Sequence[Weight], combine: Callable[[list[mx.array]], mx.array]
) -> Weight | None:
    """One weight of all `parts`; None where they are of several formats."""
    first = parts[0]
    if all(isinstance(part, Packed) for part in parts):
        if any((part.format, part.dtype) != (first.format, first.dtype) for part in parts):
            return None
        biases = None if first.biases is None else combine([part.biases for part in parts])
        return replace(
            first,
            codes=combine([part.codes for part in parts]),
            scales=combine([part.scales for part in parts]),
            biases=biases,
        )
    if any(isinstance(part, Packed) or part.dtype != first.dtype for part in parts):
        return None
    return combine(list(parts))
