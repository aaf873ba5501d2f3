"""Writes one safetensors file whose tensors' shapes are known beforehand, rows in any order, so
that no tensor has to be whole in memory. In: the tensors' specs, then rows. Out: the file, which
has its name only once it is complete and on the disk.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.kvstore.durable import sync_directory, sync_file
from ds4_agent.engine.weights.safetensors_file import item_bytes

__all__ = ["PART", "ShardFile", "TensorSpec", "file_bytes", "put_file"]

PART = ".part"  # how a file's name ends while it is written


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written."""

    name: str
    dtype: str  # in a header's spelling
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Of the last axis; of a tensor of one axis, all of it."""
        return item_bytes(self.dtype) * (self.shape[-1] if self.shape else 1)

    @property
    def bytes(self) -> int:
        return item_bytes(self.dtype) * math.prod(self.shape)


class ShardFile:
    """A safetensors file under way: a context, which puts the file in place when it ends well and
    leaves nothing when it does not. Raises OSError."""

    def __init__(self, path: Path, specs: list[TensorSpec]) -> None:
        self._header, self._starts = _header(specs)
        self._specs = {spec.name: spec for spec in specs}
        self._path, self._part = path, path.with_name(path.name + PART)
        self._file: BinaryIO = self._part.open("wb")

    def write(self, name: str, row: int, rows: NDArray[np.generic]) -> None:
        """Rows of a tensor, seen as a matrix, from number `row` on."""
        self._file.seek(self._starts[name] + row * self._specs[name].row_bytes)
        self._file.write(np.ascontiguousarray(rows).data)

    def __enter__(self) -> "ShardFile":
        self._file.write(self._header)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._file.flush()
                sync_file(self._file.fileno())
                self._part.replace(self._path)
                sync_directory(self._path.parent)
        finally:
            try:
                self._file.close()  # may write, and so fail, once more
            finally:
                self._part.unlink(missing_ok=True)


def file_bytes(specs: list[TensorSpec]) -> int:
    """How large the file of these tensors is."""
    return len(_header(specs)[0]) + sum(spec.bytes for spec in specs)


def put_file(path: Path, content: bytes) -> None:
    """A small file, whole or not at all. Raises OSError."""
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            sync_file(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_directory(path.parent)


def _header(specs: list[TensorSpec]) -> tuple[bytes, dict[str, int]]:
    """(the file's first bytes, where the data of each tensor begin). Large elements come first, so
    that all are aligned."""
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    starts, position = {}, 0
    for spec in sorted(specs, key=lambda spec: -item_bytes(spec.dtype)):
        starts[spec.name] = position
        offsets = [position, position + spec.bytes]
        entries[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": offsets}
        position += spec.bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: base + at for name, at in starts.items()}
