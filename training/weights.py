"""Initial values of nano's weights, by transformers' names.

In: a config and a seed. Out: a dict of float32 tensors (int64 for the hash tables). The values are
chosen so that copying is learned early: streams start nearly independent, embeddings large,
outputs of blocks small.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.config import NanoConfig

EMBEDDING_DEVIATION = 0.5
OUTPUT_DEVIATION = 0.02
# Scores are key norm times query norm: sharper than 1 from the start helps copying.
KEY_NORM = 1.5


def initial_weights(config: NanoConfig, seed: int) -> dict[str, Tensor]:
    """Every weight of the checkpoint, in the order of the layers."""
    random = torch.Generator().manual_seed(seed)
    size, vocab = config.hidden_size, config.vocab_size
    weights = {
        "model.embed_tokens.weight": normal(random, EMBEDDING_DEVIATION, vocab, size),
    }
    for index in range(len(config.layer_types)):
        for name, weight in layer(config, index, random).items():
            weights[f"model.layers.{index}.{name}"] = weight
    weights["model.hc_head.hc_fn"] = normal(random, 0.02, config.streams, config.streams * size)
    weights["model.hc_head.hc_base"] = torch.zeros(config.streams)
    weights["model.hc_head.hc_scale"] = torch.full((1,), 0.2)
    weights["model.norm.weight"] = torch.ones(size)
    weights["lm_head.weight"] = normal(random, OUTPUT_DEVIATION, vocab, size)
    return weights


def normal(random: torch.Generator, deviation: float, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=random) * deviation


def projection(random: torch.Generator, *shape: int, gain: float = 1.0) -> Tensor:
    """A matrix (or a stack of them) that keeps the variance of its input, times gain^2."""
    return normal(random, gain * shape[-1] ** -0.5, *shape)


def layer(config: NanoConfig, index: int, random: torch.Generator) -> dict[str, Tensor]:
    weights = {
        "input_layernorm.weight": torch.ones(config.hidden_size),
        "post_attention_layernorm.weight": torch.ones(config.hidden_size),
    }
    for name, weight in attention(config, index, random).items():
        weights[f"self_attn.{name}"] = weight
    for name, weight in experts(config, index, random).items():
        weights[f"mlp.{name}"] = weight
    for half, block in enumerate(("attn_hc", "ffn_hc")):
        for name, weight in connection(config, 2 * index + half, random).items():
            weights[f"{block}.{name}"] = weight
    return weights


def attention(config: NanoConfig, index: int, random: torch.Generator) -> dict[str, Tensor]:
    size, rank, dim = config.hidden_size, config.q_lora_rank, config.head_dim
    inner = config.o_groups * config.o_lora_rank
    weights = {
        "q_a_proj.weight": projection(random, rank, size),
        "q_a_norm.weight": torch.ones(rank),
        "q_b_proj.weight": projection(random, config.heads * dim, rank),
        "kv_proj.weight": projection(random, dim, size),
        "kv_norm.weight": torch.full((dim,), KEY_NORM),
        "o_a_proj.weight": projection(random, inner, config.heads * dim // config.o_groups),
        "o_b_proj.weight": projection(random, size, inner, gain=0.5),
        "sinks": torch.zeros(config.heads),
    }
    rate = config.rate(index)
    if rate:
        two_series = rate == config.csa_rate
        pool = pooling(config, rate, 2 * dim if two_series else dim, dim, random)
        weights |= {f"compressor.{name}": weight for name, weight in pool.items()}
        if two_series:
            weights |= indexer(config, random)
    return weights


def pooling(
    config: NanoConfig, rate: int, width: int, dim: int, random: torch.Generator
) -> dict[str, Tensor]:
    return {
        "kv_proj.weight": projection(random, width, config.hidden_size),
        "gate_proj.weight": projection(random, width, config.hidden_size),
        "position_bias": torch.zeros(rate, width),
        "kv_norm.weight": torch.ones(dim),
    }


def indexer(config: NanoConfig, random: torch.Generator) -> dict[str, Tensor]:
    """Never trained here: it chooses everything while a row has at most index_topk groups."""
    dim, heads = config.index_head_dim, config.index_heads
    weights = pooling(config, config.csa_rate, 2 * dim, dim, random)
    weights["q_b_proj.weight"] = projection(random, heads * dim, config.q_lora_rank)
    weights["scorer.weights_proj.weight"] = projection(random, heads, config.hidden_size)
    return {f"compressor.indexer.{name}": weight for name, weight in weights.items()}


def experts(config: NanoConfig, index: int, random: torch.Generator) -> dict[str, Tensor]:
    size, width, count = config.hidden_size, config.expert_width, config.experts
    weights = {"gate.weight": projection(random, count, size)}
    if config.is_hashed(index):
        order = torch.rand(config.vocab_size, count, generator=random).argsort(-1)
        weights["gate.tid2eid"] = order[:, : config.experts_per_token].contiguous()
    else:
        weights["gate.e_score_correction_bias"] = torch.zeros(count)
    weights["experts.gate_up_proj"] = projection(random, count, 2 * width, size)
    weights["experts.down_proj"] = projection(random, count, size, width, gain=0.5)
    weights["shared_experts.gate_proj.weight"] = projection(random, width, size)
    weights["shared_experts.up_proj.weight"] = projection(random, width, size)
    weights["shared_experts.down_proj.weight"] = projection(random, size, width, gain=0.5)
    return weights


def connection(config: NanoConfig, block: int, random: torch.Generator) -> dict[str, Tensor]:
    """Block b reads and writes mostly stream b mod n; streams hardly mix."""
    n = config.streams
    base = torch.zeros(2 * n + n * n)
    base[:n], base[n : 2 * n] = -1.0, -0.7
    base[block % n] = base[n + block % n] = 1.0
    base[2 * n :] = (3.0 * torch.eye(n)).flatten()
    return {
        "fn": normal(random, 0.02, 2 * n + n * n, n * config.hidden_size),
        "base": base,
        "scale": torch.full((3,), 0.2),
    }
