"""A weight of the result, made from its rows in the source a few at a time. In: an open checkpoint
and an outline's `Weight`. Out: rows of its tensors, ready to be written. No more than some four
million values are held at once, whatever the size of the weight. It writes no file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.packed import Packed
from ds4_agent.engine.weights.assemble import routing_table
from ds4_agent.engine.weights.quantise import quantised
from ds4_agent.engine.weights.shards import Piece, Weight
from ds4_agent.engine.weights.tensors import TensorFiles

__all__ = ["ImportanceOf", "Rows", "no_importance", "repacked"]

# By the official name of a single matrix, of one expert where it is one, and its shape [m, k]: how
# much an error of each of its inputs counts, [k], [1, k] or [m, k] (see quantise.py), or None.
ImportanceOf: TypeAlias = Callable[[str, tuple[int, int]], mx.array | None]

_STEP_VALUES = 1 << 22
_STEP_ROWS = 128  # what a scale of DeepSeek's FP8 covers
_DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}


@dataclass(frozen=True)
class Rows:
    """Some rows of each tensor of a weight."""

    first: int
    tensors: dict[str, NDArray[np.generic]]  # by the name it is written under
    values: int  # of the weight


def no_importance(_name: str, _shape: tuple[int, int]) -> None:
    """All inputs count alike."""


def repacked(
    files: TensorFiles, config: ModelConfig, weight: Weight, importance_of: ImportanceOf
) -> Iterator[Rows]:
    """All rows of a weight, in order. Raises ModelFormatError for data that are no numbers."""
    if weight.specs[0].dtype == "I32":
        table = routing_table(files, weight.name, config)
        yield Rows(0, {weight.specs[0].name: table}, weight.values)
        return
    columns, row = weight.shape[-1], 0
    step = max(_STEP_VALUES // columns // _STEP_ROWS, 1) * _STEP_ROWS
    for piece in weight.pieces:
        whole = (piece.rows, columns)
        importance = importance_of(piece.matrix, whole) if weight.is_rounded else None
        for first in range(0, piece.rows, step):
            count = min(step, piece.rows - first)
            own = _of_rows(importance, piece.rows, first, count)
            arrays = _arrays(files, weight, piece, (piece.first + first, count), own)
            mx.eval(arrays)
            tensors = {
                spec.name: _numbers(array) for spec, array in zip(weight.specs, arrays, strict=True)
            }
            yield Rows(row, tensors, count * columns)
            row += count
            del arrays, tensors
            mx.clear_cache()


def _of_rows(importance: mx.array | None, rows: int, first: int, count: int) -> mx.array | None:
    """What counts in some of the `rows` of a matrix, which may count each in its own way."""
    if importance is None or importance.ndim < 2 or importance.shape[0] != rows:
        return importance
    return importance[first : first + count]


def _arrays(
    files: TensorFiles,
    weight: Weight,
    piece: Piece,
    rows: tuple[int, int],
    importance: mx.array | None,
) -> list[mx.array]:
    """Of each tensor of the weight, the rows from one number on."""
    part = files.rows(piece.source, *rows)
    shape = (rows[1], weight.shape[-1])
    if weight.target is None:
        return [part.floats(piece.source, shape, _DTYPES[weight.specs[0].dtype])]
    dtype = _DTYPES.get(weight.specs[1].dtype, mx.float32)  # of affine scales
    if weight.is_rounded:
        matrix = part.floats(piece.source, shape, mx.float32)
        made = quantised(matrix, weight.target, importance)
        if made.biases is None:
            return [made.codes, made.scales]
        return [made.codes, made.scales.astype(dtype), made.biases.astype(dtype)]
    kept = part.weight(piece.source, shape, dtype)
    assert isinstance(kept, Packed)  # the outline read the same header
    return [kept.codes, kept.scales, *([] if kept.biases is None else [kept.biases])]


def _numbers(array: mx.array) -> NDArray[np.generic]:
    """The array's memory; numpy has no bf16."""
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    view: NDArray[np.generic] = np.array(array, copy=False)
    return view
