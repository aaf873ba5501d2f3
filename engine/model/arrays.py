"""One model in two array libraries. The functions of this folder compute with what they are given:
MLX arrays, or, on a CPU, numpy views of them. Here is what the two do not have alike.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import mlx.core as mx
import numpy as np

__all__ = [
    "Array",
    "by_columns",
    "cast",
    "compact",
    "fp32",
    "library",
    "like",
    "on_host",
    "relu",
    "rms_norm",
    "softmax",
]

# An mx.array or a numpy array; those of one call are all of one kind. On a CPU, MLX hands every
# operation to another thread, some ten microseconds that numpy does not take, its wheel computes
# exp one number at a time, and a stream keeps to one core: numpy is several times faster there, on
# the same memory. A GPU sees MLX only, and so does a CPU where numpy lacks the dtype (bf16).
Array: TypeAlias = Any

#
# The tokens of a chunk stand in the first axis, [tokens, ...], and meet a weight in one product. A
# decoding step of several states has [states, 1, ...] instead: numpy multiplies such rows one after
# the other, each by the very call that a chunk of one token makes, so what a state gives has the
# same bits whoever is decoded beside it. One product of all rows would add in another order. (For a
# handful of rows it is not faster either: BLAS packs the weights first.)

T = TypeVar("T")


def library(x: Array) -> ModuleType:
    """The library of `x`: mlx.core or numpy. Both name most operations alike."""
    return np if isinstance(x, np.ndarray) else mx


def like(x: Array, value: Array) -> Array:
    """`value` as an array of x's library. From MLX to numpy it is a view of the evaluated array."""
    if isinstance(x, np.ndarray):
        return np.array(value, copy=False)
    return value if isinstance(value, mx.array) else mx.array(value)


def fp32(x: Array) -> Array:
    """`x` in fp32; itself where it is already."""
    return x if x.dtype in (mx.float32, np.float32) else x.astype(library(x).float32)


def cast(x: Array, weight: Array) -> Array:
    """`x` in the dtype of a weight it is going to meet; itself where it is already."""
    return x if x.dtype == weight.dtype else x.astype(weight.dtype)


def compact(x: Array) -> Array:
    """The same values in a buffer of their own, so that a slice does not keep its source alive."""
    return mx.contiguous(x) if isinstance(x, mx.array) else x.copy()


def on_host(tree: T) -> T:
    """A tree of frozen dataclasses with every MLX array, all evaluated, as a numpy view of it."""
    mapped: T = _mapped(tree, mx.array, lambda array: np.array(array, copy=False))
    return mapped


def by_columns(tree: T) -> T:
    """The same with all numpy matrices [..., m, k] copied into column-major order. One row times
    such a matrix, transposed, is a sum of what lies in a row in memory: OpenBLAS reads it at twice
    the speed of dot products. Products of many rows take as long as before."""

    def turned(array: Array) -> Array:
        return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)

    mapped: T = _mapped(tree, np.ndarray, lambda x: turned(x) if x.ndim > 1 else x)
    return mapped


def _mapped(tree: Any, kind: type, change: Callable[[Array], Array]) -> Any:
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, tuple):
        return tuple(_mapped(item, kind, change) for item in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        values = {
            field.name: _mapped(getattr(tree, field.name), kind, change) for field in fields(tree)
        }
        return replace(tree, **values)
    return tree


def relu(x: Array) -> Array:
    """max(x, 0). A numpy array is overwritten: what is computed once more must not be reread."""
    if isinstance(x, mx.array):
        return mx.maximum(x, 0.0)
    return np.clip(x, 0.0, np.inf, out=x)  # three times as fast as numpy's maximum with a number


def rms_norm(x: Array, weight: Array | None, eps: float) -> Array:
    """x [..., width] over its root mean square, times `weight` [width]; statistics in fp32."""
    if isinstance(x, mx.array):
        return mx.fast.rms_norm(x, weight, eps)
    total = np.vecdot(x, x)[..., None]
    normed = x * (1 / np.sqrt(total * np.float32(1 / x.shape[-1]) + np.float32(eps)))
    return normed if weight is None else normed * weight


def softmax(x: Array) -> Array:
    """Over the last axis."""
    if isinstance(x, mx.array):
        return mx.softmax(x, axis=-1)
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
