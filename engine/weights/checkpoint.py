"""Loads a checkpoint directory: config.json and safetensors, in the official or transformers
naming. Out: a `Model` ready to run, or one `ModelFormatError` line naming the file or tensor and
what to do. It writes nothing and downloads nothing.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ds4_agent.engine import cpu
from ds4_agent.engine.api import LoadProgress
from ds4_agent.engine.errors import MemoryLimitError, ModelFormatError
from ds4_agent.engine.machine import Machine, this_machine
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.operations import PURE, Operations
from ds4_agent.engine.model.tiles import on_cpu
from ds4_agent.engine.weights.assemble import assemble
from ds4_agent.engine.weights.files import read_json, refuse_half_pulled, weight_files
from ds4_agent.engine.weights.manifest import refuse_unfinished
from ds4_agent.engine.weights.plan import Plan, plan_memory
from ds4_agent.engine.weights.safetensors_file import TensorEntry
from ds4_agent.engine.weights.tensors import TensorFiles

__all__ = [
    "NUMERICS",
    "config_json",
    "fingerprint",
    "load_model",
    "plan_entries",
    "plan_model",
    "read_config",
    "stream_dtype",
]

# Raised when the same weights and tokens would give another state.
NUMERICS = 2

_WHOLE_BYTES = 64 << 20  # files up to this size are hashed whole
_SAMPLE_BYTES, _SAMPLES = 1 << 20, 16


def read_config(directory: Path, *, kv_simulation: bool = False) -> ModelConfig:
    """The configuration of the checkpoint in `directory`; "ds4_kv_simulation" in its config.json
    switches the rounding of rows on, too. Raises ModelFormatError."""
    keys = config_json(directory)
    simulates = kv_simulation or bool(keys.get("ds4_kv_simulation", False))
    return ModelConfig.from_json(keys, kv_simulation=simulates)


def load_model(
    directory: Path,
    *,
    dtype: mx.Dtype | None = None,
    on_load: Callable[[LoadProgress], None] | None = None,
    kv_simulation: bool = False,
    context_length: int = 0,
    machine: Machine | None = None,
    operations: Operations = PURE,
) -> Model:
    """Load and evaluate all weights.

    `dtype` is that of the streams, projections and stored rows: fp32 on a CPU and bf16 on a GPU
    unless given; what needs fp32 is fp32 in any case. `on_load` follows the layers.
    `operations`: what the model computes with on a GPU.
    Raises ModelFormatError before anything large is read wherever the headers show the fault, and
    MemoryLimitError where `machine`, this one unless given, has no room for it and for
    `context_length` tokens.
    """
    if on_cpu():
        cpu.prepare()
    config = read_config(directory, kv_simulation=kv_simulation)
    files = TensorFiles(directory)
    if dtype is None:
        dtype = stream_dtype()
    plan = plan_entries(directory, config, files.entries, context_length, dtype, machine)
    refusal = plan.refusal()
    if refusal is not None:
        raise MemoryLimitError(refusal)
    return Model(config, assemble(files, config, dtype, on_load), operations=operations)


def plan_model(directory: Path, context_length: int, machine: Machine | None = None) -> Plan:
    """What the checkpoint would take with a context of so many tokens, from its headers only.
    Raises ModelFormatError."""
    config, files = read_config(directory), TensorFiles(directory)
    return plan_entries(directory, config, files.entries, context_length, machine=machine)


def plan_entries(
    directory: Path,
    config: ModelConfig,
    entries: Mapping[str, TensorEntry],
    context_length: int,
    dtype: mx.Dtype | None = None,
    machine: Machine | None = None,
) -> Plan:
    """The same from tensors by official name, wherever they are. `dtype`: that of the streams."""
    return plan_memory(
        directory,
        config,
        entries,
        context_length,
        machine or this_machine(),
        stream_bytes=(dtype or stream_dtype()).size,
        on_cpu=on_cpu(),
    )


def stream_dtype() -> mx.Dtype:
    """Of streams, projections and stored rows, where none is asked for."""
    return mx.float32 if on_cpu() else mx.bfloat16


def fingerprint(directory: Path) -> str:
    """64 hex digits that change with the weights, the tokenizer, the config or our numerics.

    Small files are hashed whole; of large ones the name, size, header and evenly spaced samples,
    because reading 160 GB at every start would take longer than loading them.
    """
    digest = hashlib.sha256(f"ds4-agent numerics {NUMERICS}\n".encode())
    names = ("config.json", "tokenizer.json")
    extra = [directory / name for name in names if (directory / name).is_file()]
    for path in [*extra, *weight_files(directory)]:
        try:
            _hash_file(digest, path)
        except OSError as error:
            raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _hash_file(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name} {size}\n".encode())
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            digest.update(file.read())
            return
        step = (size - _SAMPLE_BYTES) // (_SAMPLES - 1)
        for sample in range(_SAMPLES):
            file.seek(sample * step)
            digest.update(file.read(_SAMPLE_BYTES))


def config_json(directory: Path) -> dict[str, Any]:
    """The keys of a checkpoint's config.json. Raises ModelFormatError."""
    if not directory.is_dir():
        raise ModelFormatError(f"there is no model directory {directory}; check the path")
    refuse_half_pulled(directory)
    path = directory / "config.json"
    if not path.is_file():
        refuse_unfinished(directory)
        raise ModelFormatError(f"{directory} has no config.json; it is not a model directory")
    return read_json(path)
