"""The tensors of a checkpoint directory by official name, read one at a time. In: a directory of
safetensors, one file or shards. Out: arrays, or `Packed` weights that stay quantised, of the
expected shape and dtype, or one `ModelFormatError` line naming file and tensor. It knows no model
structure.
"""

from copy import copy
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.model.packed import Packed, Weight, unpacked
from ds4_agent.engine.weights.files import GOOD_REPOSITORY, weight_files
from ds4_agent.engine.weights.names import official_name
from ds4_agent.engine.weights.official_formats import (
    BLOCK,
    FP4_GROUP,
    dequantise_fp4,
    dequantise_fp8,
)
from ds4_agent.engine.weights.packed_formats import PackedFormat, codebook_tensor, format_of
from ds4_agent.engine.weights.safetensors_file import TensorEntry, read_header
from ds4_agent.engine.weights.stamps import Stamp, changed, stamp

__all__ = ["TensorFiles"]

_FLOATS = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_OFFICIAL = {"F8_E4M3": 1, "I8": 2}  # DeepSeek's own: values a byte
_INTEGERS = {
    "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32,
}  # fmt: skip
_GROUP = 32  # values a scale, of mxfp8 and mxfp4


class TensorFiles:
    """An open checkpoint. Holds where each tensor stands; data are read when asked for."""

    def __init__(self, directory: Path) -> None:
        """Checks every file's header against its size. Raises ModelFormatError."""
        self.directory = directory
        self.entries: dict[str, TensorEntry] = {}  # by official name
        self._own_names: dict[str, str] = {}
        self._stamps: dict[Path, Stamp] = {}
        for path in weight_files(directory):
            self._stamps[path] = stamp(path)
            header = read_header(path)
            foreign = codebook_tensor(header)
            if foreign is not None:
                raise ModelFormatError(
                    f"{path}: {foreign} is of a codebook format, which this engine does not read; "
                    f"give a plain MLX or official checkpoint, for instance {GOOD_REPOSITORY}"
                )
            for own_name, entry in header.items():
                name = official_name(own_name)
                other = self.entries.get(name, entry).file
                if other != path:
                    raise ModelFormatError(
                        f"{other} and {path} both hold {own_name}; they are of two downloads: "
                        "remove the files of one, or get its model.safetensors.index.json"
                    )
                self.entries[name], self._own_names[name] = entry, own_name

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def floats(self, name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        """Tensor `name` of `shape`, converted to `dtype`, whatever it is stored as."""
        weight = self.weight(name, shape, dtype)
        return unpacked(weight) if isinstance(weight, Packed) else weight

    def weight(self, name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> Weight:
        """The same, but a quantised one stays so where MLX can multiply with it."""
        found, entry = self.form(name, shape), self._entry(name)
        if entry.dtype in _OFFICIAL:
            return self._official(name, entry, found, shape, dtype)
        if found is not None:
            return self._packed(name, entry, found, shape, dtype)
        return self._float_array(name, entry).reshape(shape).astype(dtype)

    def form(self, name: str, shape: tuple[int, ...]) -> PackedFormat | None:
        """How `weight` gives tensor `name` of `shape`: None as plain numbers. Checks all that the
        headers show, and reads no data."""
        entry = self._entry(name)
        if entry.dtype in _OFFICIAL:
            return self._official_form(name, entry, shape)
        if entry.dtype == "U32":
            return self._packed_form(name, entry, shape)
        if entry.dtype not in _FLOATS:
            raise ModelFormatError(
                f"{entry.file}: {name} is {entry.dtype}, a format this engine does not read; give "
                f"a bf16, fp16 or fp32 checkpoint, or a plain MLX one, or {GOOD_REPOSITORY}"
            )
        self._check_shape(name, entry, shape)
        return None

    def rows(self, name: str, first: int, count: int) -> "TensorFiles":
        """A view of so many rows of one weight, seen as a matrix [rows, k], and of their scales.
        The first is a multiple of 128, for DeepSeek's scales of so many rows."""
        base, view = name.removesuffix(".weight"), copy(self)
        view.entries = {name: self._entry(name).rows(first, count)}
        for other in (f"{base}.{suffix}" for suffix in ("scale", "scales", "biases")):
            if other in self.entries:
                per_block = BLOCK if self.entries[name].dtype == "F8_E4M3" else 1
                blocks = first // per_block, -(-count // per_block)
                view.entries[other] = self.entries[other].rows(*blocks)
        return view

    def integers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Integer table `name` of `shape`."""
        entry = self.check_integers(name, shape)
        return _read(entry, _INTEGERS[entry.dtype]).astype(np.int32)

    def check_integers(self, name: str, shape: tuple[int, ...]) -> TensorEntry:
        """Where the table stands, if there is one by its header."""
        entry = self._entry(name)
        if entry.dtype not in _INTEGERS:
            raise ModelFormatError(
                f"{entry.file}: {name} is {entry.dtype}, not a table of integers"
            )
        self._check_shape(name, entry, shape)
        return entry

    def _entry(self, name: str) -> TensorEntry:
        if name not in self.entries:
            raise ModelFormatError(
                f"{self.directory}: tensor {name} is missing; the download is incomplete or its "
                "config.json belongs to another model"
            )
        entry = self.entries[name]
        if stamp(entry.file) != self._stamps[entry.file]:
            raise changed(entry.file)
        return entry

    def _check_shape(self, name: str, entry: TensorEntry, shape: tuple[int, ...]) -> None:
        """Matrices may be stored as one below the other: [groups * m, k] for [groups, m, k]."""
        found, wanted = entry.shape, shape
        if len(found) != len(shape) and min(len(found), len(shape)) > 1:
            found, wanted = _flat(found), _flat(wanted)
        if found != wanted:
            raise ModelFormatError(
                f"{entry.file}: {self._own_names[name]} has shape {list(entry.shape)}, and "
                f"config.json asks for {list(shape)}; the two belong to different models"
            )

    def _companion(self, name: str, suffix: str) -> tuple[str, TensorEntry]:
        """The scales of a quantised weight."""
        entry, other = self.entries[name], f"{name.removesuffix('.weight')}.{suffix}"
        if other not in self.entries:
            raise ModelFormatError(
                f"{entry.file}: {name} is {entry.dtype} and its {other} is missing; "
                "download it again, or give a bf16, fp16 or fp32 checkpoint"
            )
        return other, self.entries[other]

    def _official_form(
        self, name: str, entry: TensorEntry, shape: tuple[int, ...]
    ) -> PackedFormat | None:
        """Of a tensor in one of DeepSeek's packed formats."""
        scale_name, scale = self._companion(name, "scale")
        per_byte = _OFFICIAL[entry.dtype]
        rows, columns = _flat(shape)
        if per_byte == 2:
            scales: tuple[int, ...] = (rows, columns // FP4_GROUP)
        else:
            scales = (-(-rows // BLOCK), -(-columns // BLOCK))
        self._check_shape(name, entry, (*shape[:-1], columns // per_byte))
        self._check_shape(scale_name, scale, scales)
        if scale.dtype != "F8_E8M0":
            raise ModelFormatError(
                f"{scale.file}: {self._own_names[scale_name]} is {scale.dtype} and not F8_E8M0; "
                f"give DeepSeek's own files, for instance {GOOD_REPOSITORY}"
            )
        if columns % _GROUP:  # no published weight is so narrow
            return None
        return PackedFormat(*(("mxfp4", 4) if per_byte == 2 else ("mxfp8", 8)), _GROUP)

    def _official(
        self,
        name: str,
        entry: TensorEntry,
        found: PackedFormat | None,
        shape: tuple[int, ...],
        dtype: mx.Dtype,
    ) -> Weight:
        """A tensor in one of DeepSeek's packed formats. No bit is lost."""
        per_byte = _OFFICIAL[entry.dtype]
        rows, columns = _flat(shape)
        codes = _read(entry, np.uint8).reshape(rows, -1)
        scale_name, scale = self._companion(name, "scale")
        powers = _read(scale, np.uint8)
        # The only codes that are no numbers; FP4 has none.
        if (powers == 255).any():
            raise _no_numbers(scale, scale_name)
        if per_byte == 1 and ((codes & 127) == 127).any():
            raise _no_numbers(entry, name)
        if found is None:
            unpack = dequantise_fp4 if per_byte == 2 else dequantise_fp8
            return mx.array(unpack(codes, powers)).reshape(shape).astype(dtype)
        if per_byte == 1:
            powers = powers.repeat(BLOCK, axis=0)[:rows]
            powers = powers.repeat(BLOCK // _GROUP, axis=1)[:, : columns // _GROUP]
        lead = shape[:-1]
        return Packed(
            mx.array(codes.view(np.uint32).reshape(*lead, -1)),
            mx.array(powers.reshape(*lead, -1)),
            None,
            found.mode,
            found.bits,
            found.group_size,
            dtype,
        )

    def _packed_form(self, name: str, entry: TensorEntry, shape: tuple[int, ...]) -> PackedFormat:
        """Of a weight as MLX stores it: words of codes, scales and perhaps biases."""
        scales_name, scales = self._companion(name, "scales")
        biases_name = f"{name.removesuffix('.weight')}.biases"
        found = format_of(
            shape[-1],
            entry.shape[-1] if entry.shape else 0,
            scales.shape[-1] if scales.shape else 0,
            scales_dtype=scales.dtype,
            has_biases=biases_name in self.entries,
        )
        if found is None or (scales.dtype not in _FLOATS and scales.dtype != "U8"):
            raise ModelFormatError(
                f"{entry.file}: {self._own_names[name]} {list(entry.shape)} with scales "
                f"{scales.dtype} {list(scales.shape)} is no weight of {shape[-1]:,} columns in a "
                f"format of MLX; give for instance {GOOD_REPOSITORY}"
            )
        groups = (*shape[:-1], scales.shape[-1])
        self._check_shape(name, entry, (*shape[:-1], entry.shape[-1]))
        self._check_shape(scales_name, scales, groups)
        if found.mode == "affine":
            biases = self.entries[biases_name]
            self._check_shape(biases_name, biases, groups)
            if biases.dtype not in _FLOATS:
                raise ModelFormatError(
                    f"{biases.file}: {biases_name} is {biases.dtype}, not floats"
                )
        return found

    def _packed(
        self,
        name: str,
        entry: TensorEntry,
        found: PackedFormat,
        shape: tuple[int, ...],
        dtype: mx.Dtype,
    ) -> Packed:
        """A weight as MLX stores it."""
        scales_name, scales = self._companion(name, "scales")
        groups = (*shape[:-1], scales.shape[-1])
        codes = mx.array(_read(entry, np.uint32).reshape(*shape[:-1], -1))
        form = (found.mode, found.bits, found.group_size, dtype)
        if found.mode != "affine":
            powers = _read(scales, np.uint8).reshape(groups)
            # e8m0 has one code that is no number, nvfp4's e4m3 has two.
            wrong = (powers & 127) == 127 if found.mode == "nvfp4" else powers == 255
            if wrong.any():
                raise _no_numbers(scales, scales_name)
            return Packed(codes, mx.array(powers), None, *form)
        values = [
            self._float_array(*part).reshape(groups).astype(dtype)
            for part in ((scales_name, scales), self._companion(name, "biases"))
        ]
        return Packed(codes, values[0], values[1], *form)

    def _float_array(self, name: str, entry: TensorEntry) -> mx.array:
        values = mx.array(_read(entry, _FLOATS[entry.dtype]))
        if entry.dtype == "BF16":
            values = values.view(mx.bfloat16)
        if not mx.isfinite(values).all().item():
            raise _no_numbers(entry, name)
        return values


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the matrices [..., m, k] one below the other."""
    return int(np.prod(shape[:-1])), shape[-1]


def _no_numbers(entry: TensorEntry, name: str) -> ModelFormatError:
    return ModelFormatError(
        f"{entry.file}: {name} holds values that are no numbers; download it again"
    )


def _read(entry: TensorEntry, dtype: Any) -> NDArray[Any]:
    """The stored numbers of a tensor, in its shape."""
    count = int(np.prod(entry.shape))
    try:
        with entry.file.open("rb") as file:
            file.seek(entry.start)
            return np.fromfile(file, dtype=dtype, count=count).reshape(entry.shape)
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"{entry.file} cannot be read: {error}") from error
