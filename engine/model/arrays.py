"""One model in two array libraries. The functions of this folder compute with what they are given:
MLX arrays, or, for a few tokens on a CPU, numpy arrays. Here is what the two do not have alike.
"""

from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import mlx.core as mx
import numpy as np

__all__ = [
    "Array",
    "cast",
    "fp32",
    "library",
    "like",
    "on_host",
    "rms_norm",
    "softmax",
    "stored",
]

# An mx.array or a numpy array; those of one call are all of one kind. MLX hands each operation on a
# CPU to a thread of its own, some ten microseconds that numpy does not take: a decode step, which
# is a thousand small operations, is several times faster in numpy, on the same memory. A prefill
# chunk, which is hundreds of large ones, is faster in MLX, and a GPU sees MLX only.
Array: TypeAlias = Any

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


def stored(x: Array, dtype: mx.Dtype) -> mx.array:
    """`x` as a state keeps it: in MLX, as `dtype`, in a buffer of its own, so that a slice does not
    keep its source alive."""
    return mx.contiguous(x.astype(dtype)) if isinstance(x, mx.array) else mx.array(x, dtype=dtype)


def on_host(tree: T) -> T:
    """A tree of frozen dataclasses with every MLX array, all evaluated, as a numpy view of it."""
    if isinstance(tree, mx.array):
        return np.array(tree, copy=False)  # type: ignore[return-value]
    if isinstance(tree, tuple):
        return tuple(on_host(item) for item in tree)  # type: ignore[return-value]
    if is_dataclass(tree) and not isinstance(tree, type):
        values = {field.name: on_host(getattr(tree, field.name)) for field in fields(tree)}
        return replace(tree, **values)
    return tree


def rms_norm(x: Array, weight: Array | None, eps: float) -> Array:
    """x [..., width] over its root mean square, times `weight` [width]; statistics in fp32."""
    if isinstance(x, mx.array):
        return mx.fast.rms_norm(x, weight, eps)
    total = np.add.reduce(x * x, axis=-1, keepdims=True)
    normed = x * (1 / np.sqrt(total * np.float32(1 / x.shape[-1]) + np.float32(eps)))
    return normed if weight is None else normed * weight


def softmax(x: Array) -> Array:
    """Over the last axis."""
    if isinstance(x, mx.array):
        return mx.softmax(x, axis=-1)
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
