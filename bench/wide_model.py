"""Layers of V4 Flash in their real widths, of random weights in a published layout, put together by
the engine's own assembly. In: a layout's name and which layers. Out: a `Model`, and the bytes that
a token makes it read. The codes are drawn as they are stored: nothing is ever unpacked, so that a
layer takes 2 to 4 GB and no more.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.checkup.traffic import held_and_read
from ds4_agent.engine.model.config import LayerKind, ModelConfig
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.packed import Packed, Weight
from ds4_agent.engine.model.parameters import Parameters
from ds4_agent.engine.weights.assemble import assemble

__all__ = ["LAYOUTS", "PUBLISHED", "Wide", "build"]

# config.json of deepseek-ai/DeepSeek-V4-Flash-0731, what the engine reads of it.
PUBLISHED = ModelConfig.from_json(
    {
        "model_type": "deepseek_v4",
        "vocab_size": 129280,
        "hidden_size": 4096,
        "num_hidden_layers": 43,
        "num_attention_heads": 64,
        "head_dim": 512,
        "qk_rope_head_dim": 64,
        "q_lora_rank": 1024,
        "o_lora_rank": 1024,
        "o_groups": 8,
        "index_n_heads": 64,
        "index_head_dim": 128,
        "index_topk": 512,
        "n_routed_experts": 256,
        "num_experts_per_tok": 6,
        "moe_intermediate_size": 2048,
        "num_hash_layers": 3,
        "sliding_window": 128,
        "max_position_embeddings": 1 << 20,
        "rope_scaling": {
            "type": "yarn",
            "factor": 16,
            "original_max_position_embeddings": 65536,
            "beta_fast": 32,
            "beta_slow": 1,
        },
        "compress_ratios": [0, 0] + [4, 128] * 20 + [4, 0, 0, 0],
    }
)

Form = tuple[str, int, int]  # mode, bits, group size
_FP8, _FP4 = ("mxfp8", 8, 32), ("mxfp4", 4, 32)


def _affine(bits: int) -> Form:
    return "affine", bits, 64


# What of each layout is quantised, by official name; the first that matches counts, and what none
# matches is stored in bf16. `native` is DeepSeek's own, `q2` the recipe of `model convert`.
_INDEXER = (r"attn\.indexer\.wq_b", _FP8)
LAYOUTS: Mapping[str, Sequence[tuple[str, Form]]] = {
    "native": ((r"ffn\.experts\.", _FP4), (r"attn\.w|ffn\.shared", _FP8), _INDEXER),
    "fp32": ((r"ffn\.experts\.|^embed|^head\.weight", _affine(2)),),  # of attention, all else small
    "q2": (
        (r"ffn\.experts\.", _affine(2)),
        (r"attn\.w", _affine(6)),
        (r"ffn\.shared|^embed|^head\.weight", _affine(8)),
        _INDEXER,
    ),
}
_STORED_FP32 = re.compile(r"(hc_\w+|attn_sink|ape|gate\.bias)$")
# Root mean square of random codes: of e2m1, and of e4m3 below 2.
_SIZE = {"mxfp4": 2.9, "mxfp8": 0.6}
_POOL_WORDS = 1 << 24
_ALL_BYTES_BELOW_TWO = 0xBFBFBFBF  # of e4m3: no code is NaN then


@dataclass
class _RandomTensors:
    """Stands where `TensorFiles` stands for an open checkpoint, and counts what a token reads."""

    layout: str
    config: ModelConfig
    stored: int = 0  # bytes of all weights, as a checkpoint stores them
    read: float = 0.0  # of them, what one token reads
    directory: str = "random"
    entries: Mapping[str, Any] = field(default_factory=dict)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def __post_init__(self) -> None:
        words = self._rng.integers(0, 1 << 32, _POOL_WORDS, dtype=np.uint32)
        self._pool, self._small = mx.array(words), mx.array(words & _ALL_BYTES_BELOW_TWO)
        self._noise = mx.array(self._rng.standard_normal(_POOL_WORDS, dtype=np.float32))

    def __contains__(self, name: str) -> bool:
        return name.endswith(("gate.bias", "gate_up_proj.weight", "down_proj.weight"))

    def floats(self, name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        self._count(name, math.prod(shape) * (4 if _STORED_FP32.search(name) else 2), shape)
        noise = _repeated(self._noise, shape)
        if "norm" in name or name.endswith("scale"):
            values = 1 + 0.1 * noise
        elif name.endswith(("base", "sink", "ape", "bias")):
            values = 0.3 * noise
        else:
            values = noise if name == "embed.weight" else noise * shape[-1] ** -0.5
        return values.astype(dtype)

    def weight(self, name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> Weight:
        form = next((f for part, f in LAYOUTS[self.layout] if re.search(part, name)), None)
        if form is None:
            return self.floats(name, shape, dtype)
        mode, bits, group = form
        *lead, columns = shape
        pool = self._small if mode == "mxfp8" else self._pool
        codes = _repeated(pool, (*lead, columns * bits // 32))
        groups, size = (*lead, columns // group), columns**-0.5
        if mode == "affine":
            step = size * 12**0.5 / 2**bits
            scales = mx.full(groups, step, dtype=dtype)
            packed = Packed(codes, scales, scales * -(2 ** (bits - 1)), mode, bits, group, dtype)
            scale_bytes = 4
        else:
            power = round(127 + math.log2(size / _SIZE[mode]))
            scales = mx.full(groups, power, dtype=mx.uint8)
            packed, scale_bytes = Packed(codes, scales, None, mode, bits, group, dtype), 1
        if mode == "mxfp8" and name.startswith("layers."):
            scale_bytes = 0  # one of 128 x 128 values is stored, which is nothing
        self._count(name, codes.nbytes + math.prod(groups) * scale_bytes, shape)
        mx.eval(codes, scales, *([] if packed.biases is None else [packed.biases]))
        return packed

    def integers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.int32]:
        return self._rng.integers(0, self.config.n_routed_experts, shape, dtype=np.int32)

    def _count(self, name: str, size: int, shape: tuple[int, ...]) -> None:
        self.stored += size
        self.read += size * _read_share(name, shape, self.config)


def _repeated(pool: mx.array, shape: tuple[int, ...]) -> mx.array:
    """An array of its own with what is in the pool, over and over: drawing gigabytes of numbers
    would take minutes, and no product notices."""
    count, size = math.prod(shape), pool.shape[0]
    repeats = mx.broadcast_to(pool, (-(-count // size), size)).reshape(-1)
    return mx.contiguous(repeats[:count].reshape(shape) + 0)


def _read_share(name: str, shape: Sequence[int], config: ModelConfig) -> float:
    """Which part of a weight one token reads."""
    if "ffn.experts." in name:
        return config.num_experts_per_tok / config.n_routed_experts
    return 1 / shape[0] if name == "embed.weight" else 1.0


@dataclass(frozen=True)
class Wide:
    """A model and what one token reads of its weights, the ends included."""

    model: Model
    parameters: Parameters
    stored: int  # bytes of all weights, as a checkpoint stores them
    stored_read: float  # of them, what a token reads: less no engine can read
    held: int  # bytes of all weights, as this engine holds them
    held_read: float


def build(
    layout: str,
    kinds: Sequence[LayerKind],
    hashed: Sequence[bool],
    sizes: ModelConfig = PUBLISHED,
) -> Wide:
    """The two ends and these layers between them."""
    config = replace(
        sizes,
        num_hidden_layers=len(kinds),
        layer_kinds=tuple(kinds),
        hash_routed=tuple(hashed),
    )
    files = _RandomTensors(layout, config)
    on_gpu = mx.default_device().type != mx.DeviceType.cpu
    dtype = mx.bfloat16 if on_gpu else mx.float32  # as `load_model` chooses
    parameters = assemble(cast("Any", files), config, dtype, None)
    model = Model(config, parameters, in_numpy=False)
    held, read = held_and_read(parameters, config)
    return Wide(model, parameters, files.stored, files.read, held, read)
