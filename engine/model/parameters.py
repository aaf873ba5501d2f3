"""The weights of a model in the engine's own layout, as frozen values: projections of one input
fused, experts stacked, gate and up side by side. Shapes are written here once; a `Weight` may be
quantised (see packed.py). It reads no file (that is `weights`) and computes nothing.
"""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.arrays import Array
from ds4_agent.engine.model.packed import Weight

__all__ = [
    "AttentionWeights",
    "ExpertWeights",
    "HyperWeights",
    "IndexWeights",
    "LayerWeights",
    "Parameters",
    "PoolWeights",
]


@dataclass(frozen=True)
class HyperWeights:
    """One hyper-connection, fp32. n = hc_mult. Rows: n pre, n post, n * n mixing."""

    fn: Array  # [2n + n², n * hidden], each row already times its scale
    base: Array  # [2n + n²]
    gate_scale: Array  # [2n], and below: constants of hyper.py
    gate_shift: Array  # [2n]
    row_sums: Array  # [n² + 1, n² + 1]
    column_sums: Array  # [n² + 1, n² + 1]


@dataclass(frozen=True)
class PoolWeights:
    """The compressor of a layer, fp32; on CSA layers the indexer's compressor stands beside it."""

    proj: Array  # [values and gates, hidden]; column order in compressor.py
    bias: Array  # [rows pooled, width of a pooled row]
    norm: Array  # [head_dim]


@dataclass(frozen=True)
class IndexWeights:
    """The indexer of a CSA layer."""

    q: Weight  # [index_n_heads * index_head_dim, q_lora_rank] stream dtype
    norm: Array  # [index_head_dim] fp32, of the index keys
    rotation: Array | None  # [index_head_dim, index_head_dim] fp32 Hadamard, for kv_simulation


@dataclass(frozen=True)
class AttentionWeights:
    inputs: Weight  # [q_lora_rank + head_dim (+ index_n_heads), hidden] stream dtype
    q_norm: Array  # [q_lora_rank] fp32
    kv_norm: Array  # [head_dim] fp32
    q: Weight  # [heads * head_dim, q_lora_rank] stream dtype
    q_scale: Array  # [head_dim] fp32, all head_dim^-0.5: the scores' scale
    sinks: Array  # [heads] fp32
    score_bound: float  # no score or sink can be larger, whatever the input
    out_groups: Weight  # [groups, o_lora_rank, heads * head_dim / groups] stream dtype
    out: Weight  # [hidden, groups * o_lora_rank] stream dtype
    pool: PoolWeights | None
    index: IndexWeights | None


@dataclass(frozen=True)
class ExpertWeights:
    router: Array  # [experts, hidden] fp32
    bias: Array | None  # [experts] fp32, for the choice only; None on hash-routed layers
    table: NDArray[np.int32] | None  # [vocab, experts per token]; hash-routed layers only
    gate_up: Weight  # [experts, 2 * intermediate, hidden] stream dtype
    down: Weight  # [experts, hidden, intermediate] stream dtype
    shared_gate_up: Weight  # [2 * intermediate, hidden] stream dtype
    shared_down: Weight  # [hidden, intermediate] stream dtype


@dataclass(frozen=True)
class LayerWeights:
    attention_hyper: HyperWeights
    attention_norm: Array  # [hidden] fp32
    attention: AttentionWeights
    expert_hyper: HyperWeights
    expert_norm: Array  # [hidden] fp32
    experts: ExpertWeights


@dataclass(frozen=True)
class Parameters:
    embed: Weight  # [vocab, hidden] stream dtype
    layers: tuple[LayerWeights, ...]
    head_fn: Array  # [n, n * hidden] fp32, times its scale
    head_base: Array  # [n] fp32
    norm: Array  # [hidden] fp32
    head: Weight  # [vocab, hidden] fp32: logits are exact to fp32

    @property
    def dtype(self) -> mx.Dtype:
        """The stream dtype: of the residual streams, projections and stored rows."""
        dtype: mx.Dtype = self.embed.dtype
        return dtype
