"""Sizes of the nano model and their config.json, and where runs are kept.

In: nothing. Out: a frozen `NanoConfig` and the keys transformers' DeepseekV4Config reads. Every
mechanism of V4 is present: windows, both compressions, indexer, sinks, hyper-connections,
hash-routed and scored experts, grouped output.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = Path(__file__).parent / "runs"  # the folders of all runs, not in git
SLIDING = "sliding_attention"
CSA = "compressed_sparse_attention"
HCA = "heavily_compressed_attention"


@dataclass(frozen=True)
class NanoConfig:
    """About 5 M parameters; the widths are what two CPU cores can train in an hour or two."""

    vocab_size: int = 2048
    hidden_size: int = 256
    layer_types: tuple[str, ...] = (SLIDING, SLIDING, CSA, HCA, CSA)
    hash_layers: int = 2
    heads: int = 4
    # Keys are the values too: one vector of a token must say what it is and what stood before it.
    head_dim: int = 128
    rope_dim: int = 32
    q_lora_rank: int = 128
    o_groups: int = 2
    o_lora_rank: int = 128
    window: int = 256
    csa_rate: int = 4
    hca_rate: int = 128
    experts: int = 4
    experts_per_token: int = 2
    expert_width: int = 128
    routed_scale: float = 1.5
    swiglu_limit: float = 10.0
    streams: int = 4
    sinkhorn_iterations: int = 20
    hc_eps: float = 1e-6
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    compress_rope_theta: float = 160_000.0
    index_heads: int = 4
    index_head_dim: int = 32
    # The indexer is not trained: it chooses nothing up to 32,768 tokens, a long handbook included.
    index_topk: int = 8192
    max_positions: int = 65_536

    def rate(self, layer: int) -> int:
        """Tokens a compressed row of this layer stands for; 0 without compression."""
        return {SLIDING: 0, CSA: self.csa_rate, HCA: self.hca_rate}[self.layer_types[layer]]

    def is_hashed(self, layer: int) -> bool:
        return layer < self.hash_layers


def transformers_config(config: NanoConfig) -> dict[str, Any]:
    """The content of config.json."""
    layers = len(config.layer_types)
    return {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": "deepseek_v4",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": layers,
        "layer_types": list(config.layer_types),
        "compress_rates": {CSA: config.csa_rate, HCA: config.hca_rate},
        "mlp_layer_types": [
            "hash_moe" if config.is_hashed(layer) else "moe" for layer in range(layers)
        ],
        "num_attention_heads": config.heads,
        "num_key_value_heads": 1,
        "head_dim": config.head_dim,
        "partial_rotary_factor": config.rope_dim / config.head_dim,
        "q_lora_rank": config.q_lora_rank,
        "o_groups": config.o_groups,
        "o_lora_rank": config.o_lora_rank,
        "sliding_window": config.window,
        "n_routed_experts": config.experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": config.experts_per_token,
        "moe_intermediate_size": config.expert_width,
        "routed_scaling_factor": config.routed_scale,
        "scoring_func": "sqrtsoftplus",
        "norm_topk_prob": True,
        "swiglu_limit": config.swiglu_limit,
        "hc_mult": config.streams,
        "hc_sinkhorn_iters": config.sinkhorn_iterations,
        "hc_eps": config.hc_eps,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "compress_rope_theta": config.compress_rope_theta,
        "index_n_heads": config.index_heads,
        "index_head_dim": config.index_head_dim,
        "index_topk": config.index_topk,
        "max_position_embeddings": config.max_positions,
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
