"""Whether the files of a checkpoint are whole: headers and index agree, nothing is cut off, every
value is a number. In: a directory. Out: what there is, and a line for each fault. All data are read
once, a piece at a time; no model is built.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.weights.files import INDEX, weight_files
from ds4_agent.engine.weights.safetensors_file import TensorEntry, read_header

__all__ = ["Soundness", "examine_files"]

_PIECE = 1 << 24  # values looked at at once

_Values = NDArray[Any]
# The values of a dtype that are no numbers; other dtypes have none.
_NO_NUMBERS: dict[str, tuple[Any, Callable[[_Values], _Values]]] = {
    "F64": (np.float64, lambda x: ~np.isfinite(x)),
    "F32": (np.float32, lambda x: ~np.isfinite(x)),
    "F16": (np.float16, lambda x: ~np.isfinite(x)),
    "BF16": (np.uint16, lambda x: (x & 0x7F80) == 0x7F80),
    "F8_E5M2": (np.uint8, lambda x: (x & 0x7C) == 0x7C),
    "F8_E4M3": (np.uint8, lambda x: (x & 0x7F) == 0x7F),
    "F8_E8M0": (np.uint8, lambda x: x == 255),
}


@dataclass(frozen=True)
class Soundness:
    """What a directory's safetensors files hold."""

    files: int
    tensors: int
    bytes: int
    faults: tuple[str, ...]  # each one line: what, where


def examine_files(directory: Path, on_bytes: Callable[[int, int], None] | None = None) -> Soundness:
    """Read all of it; `on_bytes(done, total)` follows the files. Raises ModelFormatError where
    there are no files to look at, and whatever `on_bytes` raises."""
    headers: dict[Path, dict[str, TensorEntry]] = {}
    sizes: dict[Path, int] = {}
    faults = []
    for path in weight_files(directory):
        try:
            headers[path] = read_header(path)
            sizes[path] = path.stat().st_size
        except (ModelFormatError, FileNotFoundError) as error:
            faults.append(str(error))
    faults += _index_faults(directory / INDEX, headers)
    total, done = sum(sizes.values()), 0
    for path, header in headers.items():
        for name, entry in header.items():
            fault = _fault(name, entry, header)
            if fault is not None:
                faults.append(f"{path}: {name} {fault}")
        done += sizes.get(path, 0)
        if on_bytes is not None:
            on_bytes(done, total)
    count = sum(len(header) for header in headers.values())
    return Soundness(len(headers), count, total, tuple(faults))


def _index_faults(index: Path, headers: Mapping[Path, Mapping[str, TensorEntry]]) -> list[str]:
    """Each tensor stands where the index says. `weight_files` has read it."""
    if not index.is_file():
        return []
    places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    found = {(name, path.name) for path, header in headers.items() for name in header}
    told = {(name, str(file)) for name, file in places.items()}
    read = {path.name for path in headers}
    faults = [
        f"{index} names {name} in {file}, which does not hold it"
        for name, file in sorted(told - found)
        if file in read
    ]
    return faults + [
        f"{index} does not name {name} of {file}" for name, file in sorted(found - told)
    ]


def _fault(name: str, entry: TensorEntry, header: Mapping[str, TensorEntry]) -> str | None:
    """What is wrong with the data of a tensor."""
    kind = _kind(name, entry, header)
    if kind not in _NO_NUMBERS:
        return None
    dtype, are_wrong = _NO_NUMBERS[kind]
    count = math.prod(entry.shape)
    try:
        with entry.file.open("rb") as file:
            file.seek(entry.start)
            for start in range(0, count, _PIECE):
                size = min(_PIECE, count - start)
                values = np.fromfile(file, dtype, size)
                if len(values) < size:
                    return "ends early; the file changes while it is read"
                if are_wrong(values).any():
                    return "holds values that are no numbers"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None


def _kind(name: str, entry: TensorEntry, header: Mapping[str, TensorEntry]) -> str:
    """The dtype, where it tells how to read the numbers: scales of MLX's modes are bytes, powers of
    two, or, of nvfp4, which has two for a word of codes, small floats."""
    base = name.removesuffix("scales")
    codes = header.get(f"{base}weight") or header.get(base.removesuffix("_"))
    if entry.dtype != "U8" or base == name or codes is None:
        return entry.dtype
    is_nvfp4 = codes.shape[-1:] and entry.shape[-1:] and 2 * entry.shape[-1] == codes.shape[-1]
    return "F8_E4M3" if is_nvfp4 else "F8_E8M0"
