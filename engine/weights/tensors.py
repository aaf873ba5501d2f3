"""The tensors of a checkpoint directory by official name, read one at a time. In: a directory of
safetensors, one file or shards. Out: arrays of the expected shape and dtype, or one
`ModelFormatError` line naming file and tensor. It knows no model structure.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.weights.names import official_name
from ds4_agent.engine.weights.safetensors_file import TensorEntry, read_header

__all__ = ["TensorFiles", "weight_files"]

_FLOATS = {"F32", "F16", "BF16"}
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
