"""How much each input of each product counts: the mean square of what a text sends through it
(`calibrate` makes it). In: an official tensor name; an importance file. Out: what `quantise` wants
to know of that tensor; the file. It runs no model.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import EngineError, ModelFormatError
from ds4_agent.engine.kvstore.durable import sync_directory, sync_file
from ds4_agent.engine.weights.safetensors_file import read_header

__all__ = ["DOWN", "GATE_UP", "Importance", "read_importance", "write_importance"]

_FORMAT = {"format": "ds4-importance", "version": "1"}
_ROWS = ".rows"  # what the name of a count ends with
_EXPERTS = re.compile(r"^(layers\.\d+\.ffn\.experts\.)(?:(\d+)\.)?(\w+)\.weight$")
# The names of stacked experts.
GATE_UP, DOWN = "gate_up_proj.weight", "down_proj.weight"
_STACKS = {
    "w1": GATE_UP, "w3": GATE_UP, "gate_proj": GATE_UP, "up_proj": GATE_UP,
    "gate_up_proj": GATE_UP, "w2": DOWN, "down_proj": DOWN,
}  # fmt: skip
# Products of one input are recorded once: (the names of the others, that of the first).
_ALIKE = (
    (re.compile(r"^(layers\.\d+\.attn\.)(?:wkv|indexer\.weights_proj)\.weight$"), r"\1wq_a.weight"),
    (re.compile(r"^(layers\.\d+\.attn\.)indexer\.wq_b\.weight$"), r"\1wq_b.weight"),
    (re.compile(r"^(layers\.\d+\.ffn\.shared_experts\.)w3\.weight$"), r"\1w1.weight"),
)


@dataclass(frozen=True)
class Importance:
    """What the products of a model have seen."""

    means: Mapping[str, NDArray[np.float32]]
    """Mean squares [k] of a product's inputs by the official name of its weight (the stacked one of
    experts); [groups, k] of attn.wo_a, whose groups of rows have inputs of their own; [experts, k].
    """
    rows: Mapping[str, NDArray[np.int64]]
    """How many rows each of these has seen: [], [groups] or [experts]. Of an expert that saw few,
    the means are mostly those of its layer."""

    def of(self, name: str, shape: tuple[int, ...]) -> mx.array | None:
        """The importance of the weight `name`, an official name, of `shape` [..., m, k] as
        `quantised` takes it: [..., 1, k] or [m, k]. None for what no text went through. Raises
        ModelFormatError if it is of a model of other sizes."""
        expert = _EXPERTS.match(name)
        if expert is not None and expert[3] in _STACKS:
            means = self.means.get(expert[1] + _STACKS[expert[3]])
            if means is not None and expert[2] is not None:
                means = means[int(expert[2]) :][:1]
        else:
            for pattern, first in _ALIKE:
                name = pattern.sub(first, name)
            means = self.means.get(name)
        return None if means is None else _fitting(name, np.atleast_2d(means), shape)


def write_importance(path: Path, importance: Importance) -> None:
    """Write the whole file or nothing. Raises EngineError."""
    arrays = {name: mx.array(means) for name, means in importance.means.items()}
    arrays |= {name + _ROWS: mx.array(count) for name, count in importance.rows.items()}
    temporary = path.with_name(f".{path.name[:60]}.{os.urandom(4).hex()}.safetensors")
    try:
        try:
            mx.save_safetensors(str(temporary), arrays, _FORMAT)
            with temporary.open("rb") as file:
                sync_file(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # MLX has but one kind of error
        raise EngineError(f"cannot write {path}: {error}") from error


def read_importance(path: Path) -> Importance:
    """What `write_importance` wrote. Raises ModelFormatError."""
    header = read_header(path)
    loaded: Any = mx.load(str(path), return_metadata=True)
    arrays, metadata = loaded
    if {key: metadata.get(key) for key in _FORMAT} != _FORMAT:
        raise ModelFormatError(
            f"{path} is no importance file; give one that model convert --calibrate wrote"
        )
    means, rows = {}, {}
    for name in header:
        if name.endswith(_ROWS):
            rows[name.removesuffix(_ROWS)] = np.array(arrays[name]).astype(np.int64)
        else:
            means[name] = np.array(arrays[name].astype(mx.float32))
    if means.keys() != rows.keys() or not all(_is_sound(means[n], rows[n]) for n in means):
        raise ModelFormatError(f"{path} is damaged; make it again with model convert --calibrate")
    return Importance(means, rows)


def _is_sound(means: NDArray[np.float32], rows: NDArray[np.int64]) -> bool:
    shapes_fit = means.ndim > 0 and rows.shape == means.shape[:-1]
    return shapes_fit and bool(np.isfinite(means).all() and (means >= 0).all() and rows.min() >= 0)


def _fitting(name: str, means: NDArray[np.float32], shape: tuple[int, ...]) -> mx.array:
    """`means` [n, k] for a weight of `shape`: n matrices, or n groups of the rows of one."""
    n, k = means.shape
    *lead, m, columns = shape
    if columns == k and n == int(np.prod(lead)):  # of no lead 1
        return mx.array(means.reshape(*lead, 1, k))
    if columns == k and not lead and n and m % n == 0:
        return mx.array(np.repeat(means, m // n, axis=0))
    raise ModelFormatError(
        f"the importance of {name} is of {n:,} x {k:,} inputs and its weight is {list(shape)}; it "
        "was made with a model of another size: calibrate with this one"
    )
