"""Tiny V4 models for exactness: their config.json and weights, alike on every machine. Weights are
drawn from the integer stream of numpy's frozen legacy generator and rounded to fp16, so nothing
but their seed needs to stand in the repository.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

__all__ = ["MODELS", "Weights", "prompt", "shapes", "weights", "write_checkpoint"]

Weights = dict[str, NDArray[Any]]

S, C, H = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
YARN = {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536}
YARN |= {"rope_type": "yarn", "beta_fast": 32, "beta_slow": 1}


def _config(**keys: Any) -> dict[str, Any]:
    common = {
        "model_type": "deepseek_v4",
        "vocab_size": 97,
        "hidden_size": 48,
        "moe_intermediate_size": 24,
        "num_attention_heads": 4,
        "head_dim": 32,
        "partial_rotary_factor": 0.25,
        "q_lora_rank": 24,
        "o_lora_rank": 12,
        "o_groups": 2,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "index_n_heads": 64,
        "index_head_dim": 16,
        "index_topk": 16,
        "sliding_window": 24,
        "max_position_embeddings": 4096,
        "compress_rates": {C: 4, H: 128},
    }
    merged = {**common, **keys}
    return {**merged, "num_hidden_layers": len(merged["layer_types"])}


# 64 index heads: with few, ReLU leaves many scores at exactly 0 and the choice among them is free.
MODELS: dict[str, dict[str, Any]] = {
    # Every kind of layer, a window the prompt exceeds many times, a choice of 16 of 112 rows.
    "mixed": _config(layer_types=[S, C, H, C], mlp_layer_types=["hash_moe", "moe", "moe", "moe"]),
    # The published YaRN tables, window and order of layers; three experts a token.
    "yarn": _config(
        layer_types=[S, S, C, H, C],
        mlp_layer_types=["hash_moe", "hash_moe", "hash_moe", "moe", "moe"],
        sliding_window=128,
        index_topk=40,
        index_head_dim=32,
        partial_rotary_factor=0.5,
        num_experts_per_tok=3,
        o_groups=4,
        rope_parameters=YARN,
    ),
    # The nano model's proportions: few index heads, more to choose than there is.
    "nano": _config(
        layer_types=[S, C, H],
        mlp_layer_types=["hash_moe", "moe", "moe"],
        head_dim=64,
        index_n_heads=4,
        index_topk=2048,
        sliding_window=96,
        n_routed_experts=4,
    ),
}


def prompt(config: dict[str, Any], tokens: int, seed: int) -> list[int]:
    """`tokens` ids, the same on every machine."""
    stream = np.random.RandomState(seed).random_sample(tokens)
    return [int(x) for x in np.floor(stream * config["vocab_size"])]


def weights(config: dict[str, Any], seed: int) -> Weights:
    """Tensors by the names of transformers' state_dict, fp32 with values that fp16 can hold."""
    random = np.random.RandomState(seed)
    return {name: _values(random, name, shape, config) for name, shape in shapes(config)}


def write_checkpoint(
    directory: Path, config: dict[str, Any], tensors: Weights, dtype: type = np.float16
) -> Path:
    """A checkpoint directory as transformers' names would have it; floats stored as `dtype`."""
    directory.mkdir(parents=True, exist_ok=True)
    stored = {n: t.astype(dtype) if t.dtype == np.float32 else t for n, t in tensors.items()}
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return directory


def _values(
    random: np.random.RandomState, name: str, shape: tuple[int, ...], config: dict[str, Any]
) -> NDArray[Any]:
    """Activations of unit size, norms off 1, sinks and biases off 0: every part matters."""
    uniform = random.random_sample(shape) * 2 - 1
    if name.endswith("tid2eid"):
        order = random.random_sample((shape[0], config["n_routed_experts"])).argsort(axis=1)
        return order[:, : shape[1]].astype(np.int64)
    if "norm" in name:
        values = 1 + 0.4 * uniform
    elif name.endswith("scale"):
        values = 1 + 0.3 * uniform
    elif name.endswith(("base", "sinks", "position_bias", "e_score_correction_bias")):
        values = 0.8 * uniform
    elif name == "model.embed_tokens.weight":
        values = 1.7 * uniform
    else:
        values = uniform * math.sqrt(3 / shape[-1])
    return values.astype(np.float16).astype(np.float32)


def shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, in a fixed order."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer, kind in enumerate(config["layer_types"]):
        start = f"model.layers.{layer}."
        for name, shape in _layer(config, kind, config["mlp_layer_types"][layer]):
            yield start + name, shape
    yield "model.norm.weight", (hidden,)
    yield "model.hc_head.hc_fn", (4, 4 * hidden)
    yield "model.hc_head.hc_base", (4,)
    yield "model.hc_head.hc_scale", (1,)
    yield "lm_head.weight", (vocab, hidden)


def _layer(
    config: dict[str, Any], kind: str, routing: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, heads, dim = config["hidden_size"], config["num_attention_heads"], config["head_dim"]
    rank, groups, out = config["q_lora_rank"], config["o_groups"], config["o_lora_rank"]
    yield "self_attn.sinks", (heads,)
    yield "self_attn.q_a_proj.weight", (rank, hidden)
    yield "self_attn.q_a_norm.weight", (rank,)
    yield "self_attn.q_b_proj.weight", (heads * dim, rank)
    yield "self_attn.kv_proj.weight", (dim, hidden)
    yield "self_attn.kv_norm.weight", (dim,)
    yield "self_attn.o_a_proj.weight", (groups * out, heads * dim // groups)
    yield "self_attn.o_b_proj.weight", (hidden, groups * out)
    if kind != S:
        yield from _pool("self_attn.compressor.", hidden, dim, config["compress_rates"][kind], kind)
    if kind == C:
        index, index_heads = config["index_head_dim"], config["index_n_heads"]
        start = "self_attn.compressor.indexer."
        yield from _pool(start, hidden, index, config["compress_rates"][kind], kind)
        yield start + "q_b_proj.weight", (index_heads * index, rank)
        yield start + "scorer.weights_proj.weight", (index_heads, hidden)
    yield "input_layernorm.weight", (hidden,)
    yield "post_attention_layernorm.weight", (hidden,)
    for place in ("attn_hc", "ffn_hc"):
        yield f"{place}.fn", (24, 4 * hidden)
        yield f"{place}.base", (24,)
        yield f"{place}.scale", (3,)
    yield from _experts(config, routing)


def _pool(
    start: str, hidden: int, dim: int, ratio: int, kind: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = 2 * dim if kind == C else dim
    yield start + "position_bias", (ratio, width)
    yield start + "kv_proj.weight", (width, hidden)
    yield start + "gate_proj.weight", (width, hidden)
    yield start + "kv_norm.weight", (dim,)


def _experts(config: dict[str, Any], routing: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, wide = config["hidden_size"], config["moe_intermediate_size"]
    experts = config["n_routed_experts"]
    yield "mlp.gate.weight", (experts, hidden)
    if routing == "hash_moe":
        yield "mlp.gate.tid2eid", (config["vocab_size"], config["num_experts_per_tok"])
    else:
        yield "mlp.gate.e_score_correction_bias", (experts,)
    yield "mlp.experts.gate_up_proj", (experts, 2 * wide, hidden)
    yield "mlp.experts.down_proj", (experts, hidden, wide)
    for name in ("gate_proj", "up_proj"):
        yield f"mlp.shared_experts.{name}.weight", (wide, hidden)
    yield "mlp.shared_experts.down_proj.weight", (hidden, wide)
