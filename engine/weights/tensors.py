"""The tensors of a checkpoint directory by official name, read one at a time. In: a directory of
safetensors, one file or shards. Out: arrays of the expected shape and dtype, or one
`ModelFormatError` line naming file and tensor. It knows no model structure.
"""

import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.weights.names import official_name
from ds4_agent.engine.weights.official_formats import (
    BLOCK,
    FP4_GROUP,
    dequantise_fp4,
    dequantise_fp8,
)
from ds4_agent.engine.weights.safetensors_file import TensorEntry, read_header

__all__ = ["TensorFiles", "weight_files"]

_FLOATS = {"F32", "F16", "BF16"}
_PACKED = {"F8_E4M3": 1, "I8": 2}  # DeepSeek's own: values a byte
_INTEGERS = {"I64", "I32", "I16", "U8", "U16", "U32"}
_CODEBOOKS = (".gguf", ".jang", ".jangtq", ".axq")


class TensorFiles:
    """An open checkpoint. Holds the lazily loaded arrays of each file; data is read when used."""

    def __init__(self, directory: Path) -> None:
        """Checks every file's header against its size. Raises ModelFormatError."""
        self.directory = directory
        self._entries: dict[str, tuple[str, TensorEntry]] = {}
        self._arrays: dict[Path, dict[str, mx.array]] = {}
        for path in weight_files(directory):
            for name, entry in read_header(path).items():
                self._entries[official_name(name)] = (name, entry)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def floats(self, name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        """Tensor `name` of `shape`, converted to `dtype`."""
        entry = self._checked(name, shape)
        if entry.dtype in _PACKED:
            return mx.array(self._unpacked(name, entry, shape)).astype(dtype)
        if entry.dtype not in _FLOATS:
            raise ModelFormatError(
                f"{entry.file}: {name} is {entry.dtype}; quantised weights are not supported yet "
                "by this version, give a bf16, fp16 or fp32 checkpoint"
            )
        return self._array(name).astype(dtype)

    def integers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Integer table `name` of `shape`."""
        entry = self._checked(name, shape)
        if entry.dtype not in _INTEGERS:
            raise ModelFormatError(
                f"{entry.file}: {name} is {entry.dtype}, not a table of integers"
            )
        return np.array(self._array(name)).astype(np.int32)

    def _checked(self, name: str, shape: tuple[int, ...]) -> TensorEntry:
        if name not in self._entries:
            raise ModelFormatError(
                f"{self.directory}: tensor {name} is missing; the download is incomplete or its "
                "config.json belongs to another model"
            )
        own_name, entry = self._entries[name]
        # Packed weights have another shape as well; the dtype says what the matter is.
        if entry.shape != shape and entry.dtype in _FLOATS | _INTEGERS:
            raise ModelFormatError(
                f"{entry.file}: {own_name} has shape {list(entry.shape)}, and config.json asks for "
                f"{list(shape)}; the two belong to different models"
            )
        return entry

    def _unpacked(
        self, name: str, entry: TensorEntry, shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """A tensor in one of DeepSeek's packed formats, as fp32 [rows, columns]."""
        scale_name = f"{name.removesuffix('.weight')}.scale"
        if scale_name not in self._entries:
            raise ModelFormatError(
                f"{entry.file}: {name} is {entry.dtype} and its {scale_name} is missing; "
                "download it again, or give a bf16, fp16 or fp32 checkpoint"
            )
        own_name, scale = self._entries[scale_name]
        rows, columns = shape
        per_byte = _PACKED[entry.dtype]
        if per_byte == 2:
            scales: tuple[int, ...] = (rows, columns // FP4_GROUP)
        else:
            scales = (-(-rows // BLOCK), -(-columns // BLOCK))
        wanted = ((name, entry, (rows, columns // per_byte)), (own_name, scale, scales))
        for part, found, size in wanted:
            if found.shape != size:
                raise ModelFormatError(
                    f"{found.file}: {part} has shape {list(found.shape)}, and config.json asks "
                    f"for {list(size)}; the two belong to different models"
                )
        if scale.dtype != "F8_E8M0":
            raise ModelFormatError(
                f"{scale.file}: {own_name} is {scale.dtype} and not F8_E8M0; give DeepSeek's own "
                "files, for instance deepseek-ai/DeepSeek-V4-Flash-0731"
            )
        unpack = dequantise_fp4 if per_byte == 2 else dequantise_fp8
        values = unpack(_bytes(entry), _bytes(scale))
        if not np.isfinite(values).all():
            raise ModelFormatError(
                f"{entry.file}: {name} holds values that are no numbers; download it again"
            )
        return values

    def _array(self, name: str) -> mx.array:
        own_name, entry = self._entries[name]
        if entry.file not in self._arrays:
            try:
                loaded = mx.load(str(entry.file))
            except (RuntimeError, OSError) as error:
                raise ModelFormatError(
                    f"{entry.file} cannot be loaded: {error}; give a bf16, fp16 or fp32 checkpoint"
                ) from error
            assert isinstance(loaded, dict)
            self._arrays[entry.file] = loaded
        return self._arrays[entry.file][own_name]


def _bytes(entry: TensorEntry) -> NDArray[np.uint8]:
    """The stored bytes of a tensor of one byte an element, in its shape."""
    try:
        with entry.file.open("rb") as file:
            file.seek(entry.start)
            data = file.read(math.prod(entry.shape))
        return np.frombuffer(data, dtype=np.uint8).reshape(entry.shape)
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"{entry.file} cannot be read: {error}") from error


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order: its index's shards, else all there are."""
    if not directory.is_dir():
        raise ModelFormatError(f"there is no model directory {directory}; check the path")
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        return [_shard(directory, name) for name in _shard_names(index)]
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    foreign = [p.name for p in sorted(directory.iterdir()) if p.suffix in _CODEBOOKS]
    if foreign:
        raise ModelFormatError(
            f"{directory / foreign[0]} is in a format this engine does not read; give a "
            "safetensors checkpoint, for instance deepseek-ai/DeepSeek-V4-Flash-0731"
        )
    raise ModelFormatError(f"{directory} holds no *.safetensors file; download the model's weights")


def _shard_names(index: Path) -> list[str]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({str(name) for name in names})
    except OSError as error:
        raise ModelFormatError(f"{index} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(f"{index} is damaged; download it again") from error


def _shard(directory: Path, name: str) -> Path:
    path = directory / name
    if Path(name).name != name or not path.is_file():
        raise ModelFormatError(f"{path} is named by the index and missing; download it again")
    return path
