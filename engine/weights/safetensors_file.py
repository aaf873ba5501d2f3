"""The header of a safetensors file, checked against the file itself. In: a path. Out: name, dtype,
shape and bytes of each tensor, or one `ModelFormatError` line for a file that is cut off or is no
safetensors. It reads no tensor data.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ds4_agent.engine.errors import ModelFormatError

__all__ = ["TensorEntry", "header_entries", "item_bytes", "read_header"]

# Bytes an element; the formats with less than a byte are stored as bytes already.
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_LARGEST_HEADER = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor stands."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # byte of the file at which its data begin

    @property
    def size(self) -> int:
        """Bytes of its data; 0 for a dtype that is not known."""
        return _ITEM_BYTES.get(self.dtype, 0) * math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, of the last axis."""
        return item_bytes(self.dtype) * self.shape[-1]

    def rows(self, first: int, count: int) -> "TensorEntry":
        """So many rows of the matrix [rows, k] that all matrices [..., m, k] make, one below the
        other."""
        shape = (count, self.shape[-1])
        return replace(self, shape=shape, start=self.start + first * self.row_bytes)


def item_bytes(dtype: str) -> int:
    """Bytes an element of a dtype, in a safetensors header's spelling."""
    return _ITEM_BYTES[dtype]


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of `path` by name. Every byte they claim is in the file."""
    try:
        with path.open("rb") as file:
            return header_entries(path, path.stat().st_size, file.read)
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}") from error


def header_entries(path: Path, size: int, read: Callable[[int], bytes]) -> dict[str, TensorEntry]:
    """The same of a file of `size` bytes, wherever it is: `read(n)` gives its next n bytes."""
    length = int.from_bytes(read(8), "little")
    if size < 8 or length > min(size - 8, _LARGEST_HEADER):
        raise _damaged(path, f"{size:,} bytes hold no complete header")
    try:
        header = json.loads(read(length))
    except ValueError as error:
        raise _damaged(path, "its header is not that of a safetensors file") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not that of a safetensors file")
    header.pop("__metadata__", None)
    room = size - 8 - length
    return {name: _entry(path, name, value, 8 + length, room) for name, value in header.items()}


def _entry(path: Path, name: str, value: Any, base: int, room: int) -> TensorEntry:
    try:
        dtype, shape = str(value["dtype"]), tuple(int(n) for n in value["shape"])
        start, stop = (int(n) for n in value["data_offsets"])
    except (TypeError, KeyError, ValueError) as error:
        raise _damaged(path, f"its entry for {name} is malformed") from error
    item = _ITEM_BYTES.get(dtype)
    if item is not None and (start < 0 or stop - start != item * math.prod(shape)):
        raise _damaged(path, f"its entry for {name} does not fit its shape")
    if stop > room:
        raise _damaged(path, f"it ends {stop - room:,} bytes before the end of {name}")
    return TensorEntry(path, dtype, shape, base + start)


def _damaged(path: Path, what: str) -> ModelFormatError:
    return ModelFormatError(f"{path} is truncated or damaged: {what}; download it again")
