"""Writes a random DeepSeek V4 checkpoint directory (config.json, model.safetensors; fp32, the names
of transformers' state_dict), the same bytes for the same seed. Needs only numpy and safetensors.
The benchmarks and the engine's tests run on these; nothing here is trained or installed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

__all__ = ["bench_config", "config_of", "write_model"]

Shape = tuple[int, ...]


def bench_config() -> dict[str, Any]:
    """18 M parameters with all three attention kinds, hash and scored experts, and the published
    window, top-k and compression ratios, so that the shape of the work is the real one."""
    return config_of(
        vocab_size=4096,
        hidden_size=384,
        moe_intermediate_size=192,
        num_attention_heads=8,
        head_dim=64,
        q_lora_rank=128,
        o_groups=4,
        o_lora_rank=64,
        n_routed_experts=8,
        index_head_dim=32,
        index_topk=512,
        sliding_window=128,
        layer_kinds="ssCHCH",
        hash_layers=1,
        max_position_embeddings=65_536,
    )


def config_of(*, layer_kinds: str, hash_layers: int, **keys: Any) -> dict[str, Any]:
    """A config.json in transformers' keys. `layer_kinds`: per layer s(liding), C(SA) or H(CA)."""
    names = {
        "s": "sliding_attention",
        "C": "compressed_sparse_attention",
        "H": "heavily_compressed_attention",
    }
    count = len(layer_kinds)
    rope = {"partial_rotary_factor": 0.5, "rope_type": "default"}
    return {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": "deepseek_v4",
        "dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "attention_bias": False,
        "hidden_act": "silu",
        "hc_mult": 4,
        "hc_eps": 1e-6,
        "hc_sinkhorn_iters": 20,
        "index_n_heads": 64,  # with few heads the ReLU ties at zero make the top-k arbitrary
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_experts_per_tok": 2,
        "num_hidden_layers": count,
        "num_key_value_heads": 1,
        "partial_rotary_factor": 0.5,
        "qk_rope_head_dim": keys["head_dim"] // 2,
        "rms_norm_eps": 1e-6,
        "routed_scaling_factor": 1.5,
        "scoring_func": "sqrtsoftplus",
        "swiglu_limit": 10.0,
        "tie_word_embeddings": False,
        "layer_types": [names[kind] for kind in layer_kinds],
        "mlp_layer_types": ["hash_moe"] * hash_layers + ["moe"] * (count - hash_layers),
        "compress_rates": {names["C"]: 4, names["H"]: 128},
        "rope_theta": 10000.0,
        "compress_rope_theta": 160000.0,
        "rope_parameters": {
            "main": {**rope, "rope_theta": 10000.0},
            "compress": {**rope, "rope_theta": 160000.0},
        },
        **keys,
    }


def write_model(directory: Path, config: dict[str, Any], seed: int) -> int:
    """Write the model into `directory` (created); returns the number of parameters."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tensors = {name: _random(rng, name, shape, config) for name, shape in _shapes(config)}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return sum(tensor.size for tensor in tensors.values())


def _random(rng: np.random.Generator, name: str, shape: Shape, config: dict[str, Any]) -> Any:
    """Values at which every part of the model matters: unit-sized activations, norms off one,
    sinks and biases off zero, hyper-connections that mix."""
    if name.endswith("tid2eid"):
        chosen = [rng.permutation(config["n_routed_experts"])[: shape[1]] for _ in range(shape[0])]
        return np.array(chosen, dtype=np.int64)
    noise = rng.standard_normal(shape, dtype=np.float32)
    if "norm" in name:
        return 1 + 0.1 * noise
    if name.endswith("scale"):
        return 0.5 + 0.1 * noise
    if name.endswith(("base", "sinks", "position_bias", "e_score_correction_bias")):
        return 0.3 * noise
    if name == "model.embed_tokens.weight":
        return noise
    return noise / np.float32(np.sqrt(shape[-1]))


def _shapes(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every tensor."""
    hidden, streams = config["hidden_size"], config["hc_mult"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer, kind in enumerate(config["layer_types"]):
        at = f"model.layers.{layer}."
        for name, shape in _attention(config):
            yield at + "self_attn." + name, shape
        if kind != "sliding_attention":
            for name, shape in _compressor(config, kind):
                yield at + "self_attn.compressor." + name, shape
        for name, shape in _experts(config, config["mlp_layer_types"][layer]):
            yield at + "mlp." + name, shape
        yield at + "input_layernorm.weight", (hidden,)
        yield at + "post_attention_layernorm.weight", (hidden,)
        mixes = (2 + streams) * streams
        for place in ("attn_hc", "ffn_hc"):
            yield at + place + ".fn", (mixes, streams * hidden)
            yield at + place + ".base", (mixes,)
            yield at + place + ".scale", (3,)
    yield "model.norm.weight", (hidden,)
    yield "model.hc_head.hc_fn", (streams, streams * hidden)
    yield "model.hc_head.hc_base", (streams,)
    yield "model.hc_head.hc_scale", (1,)
    yield "lm_head.weight", (config["vocab_size"], hidden)


def _attention(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    hidden, rank, heads = (
        config["hidden_size"],
        config["q_lora_rank"],
        config["num_attention_heads"],
    )
    width, groups, out = config["head_dim"], config["o_groups"], config["o_lora_rank"]
    yield "sinks", (heads,)
    yield "q_a_proj.weight", (rank, hidden)
    yield "q_a_norm.weight", (rank,)
    yield "q_b_proj.weight", (heads * width, rank)
    yield "kv_proj.weight", (width, hidden)
    yield "kv_norm.weight", (width,)
    yield "o_a_proj.weight", (groups * out, heads * width // groups)
    yield "o_b_proj.weight", (hidden, groups * out)


def _compressor(config: dict[str, Any], kind: str) -> Iterator[tuple[str, Shape]]:
    hidden, ratio = config["hidden_size"], config["compress_rates"][kind]
    sparse = kind == "compressed_sparse_attention"
    yield from _pooling(config["head_dim"], hidden, ratio, overlaps=sparse)
    if not sparse:
        return
    width, heads = config["index_head_dim"], config["index_n_heads"]
    for name, shape in _pooling(width, hidden, ratio, overlaps=True):
        yield "indexer." + name, shape
    yield "indexer.q_b_proj.weight", (heads * width, config["q_lora_rank"])
    yield "indexer.scorer.weights_proj.weight", (heads, hidden)


def _pooling(width: int, hidden: int, ratio: int, *, overlaps: bool) -> Iterator[tuple[str, Shape]]:
    channels = width * (2 if overlaps else 1)
    yield "position_bias", (ratio, channels)
    yield "kv_proj.weight", (channels, hidden)
    yield "gate_proj.weight", (channels, hidden)
    yield "kv_norm.weight", (width,)


def _experts(config: dict[str, Any], kind: str) -> Iterator[tuple[str, Shape]]:
    hidden, inner, count = (
        config["hidden_size"],
        config["moe_intermediate_size"],
        config["n_routed_experts"],
    )
    yield "gate.weight", (count, hidden)
    if kind == "hash_moe":
        yield "gate.tid2eid", (config["vocab_size"], config["num_experts_per_tok"])
    else:
        yield "gate.e_score_correction_bias", (count,)
    yield "experts.gate_up_proj", (count, 2 * inner, hidden)
    yield "experts.down_proj", (count, hidden, inner)
    yield "shared_experts.gate_proj.weight", (inner, hidden)
    yield "shared_experts.up_proj.weight", (inner, hidden)
    yield "shared_experts.down_proj.weight", (hidden, inner)
