"""Builds the engine's layout from official tensors: fuses projections of one input, stacks experts,
folds scales; quantised projections stay so. In: an open checkpoint and its config. Out: evaluated
`Parameters`, layer by layer so that at most one layer is held twice. It opens no file itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.api import LoadProgress
from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.hyper import hyper_weights
from ds4_agent.engine.model.packed import Packed, Weight, grouped, joined, stacked
from ds4_agent.engine.model.parameters import (
    AttentionWeights,
    ExpertWeights,
    HyperWeights,
    IndexWeights,
    LayerWeights,
    Parameters,
    PoolWeights,
)
from ds4_agent.engine.model.simulate import hadamard
from ds4_agent.engine.weights.plan import stored_sizes
from ds4_agent.engine.weights.tensors import TensorFiles

__all__ = ["arrays_of", "assemble", "layer_weights", "routing_table"]


def assemble(
    files: TensorFiles,
    config: ModelConfig,
    dtype: mx.Dtype,
    on_load: Callable[[LoadProgress], None] | None,
) -> Parameters:
    """All parameters, evaluated. `on_load` hears of each layer, and of the two ends as one."""
    c, total = config, config.num_hidden_layers + 1
    sizes = stored_sizes(files.entries)
    done, everything = 0, sum(sizes.values())
    layers = []
    for layer in range(c.num_hidden_layers):
        weights = layer_weights(files, f"layers.{layer}.", layer, c, dtype)
        mx.eval(arrays_of(weights))
        mx.clear_cache()  # what a layer was made from is of no use to the next
        layers.append(weights)
        done += sizes.get(f"layers.{layer}", 0)
        if on_load is not None:
            on_load(LoadProgress(layer + 1, total, done, everything))
    n, wide = c.hc_mult, c.hc_mult * c.hidden_size
    embed = files.weight("embed.weight", (c.vocab_size, c.hidden_size), dtype)
    tied = c.tie_word_embeddings and "head.weight" not in files
    head_name = "embed.weight" if tied else "head.weight"
    head_fn = files.floats("hc_head_fn", (n, wide), mx.float32)
    head_scale = files.floats("hc_head_scale", (1,), mx.float32)
    parameters = Parameters(
        embed=embed,
        layers=tuple(layers),
        head_fn=head_fn * head_scale,
        head_base=files.floats("hc_head_base", (n,), mx.float32),
        norm=files.floats("norm.weight", (c.hidden_size,), mx.float32),
        head=files.weight(head_name, (c.vocab_size, c.hidden_size), mx.float32),
    )
    mx.eval(arrays_of(parameters))
    if on_load is not None:
        on_load(LoadProgress(total, total, everything, everything))
    return parameters


def layer_weights(
    files: TensorFiles, prefix: str, layer: int, c: ModelConfig, dtype: mx.Dtype
) -> LayerWeights:
    """The layer whose tensors begin with `prefix`, of the kind that `c` gives number `layer`."""
    return LayerWeights(
        attention_hyper=_hyper(files, f"{prefix}hc_attn_", c),
        attention_norm=files.floats(f"{prefix}attn_norm.weight", (c.hidden_size,), mx.float32),
        attention=_attention(files, f"{prefix}attn.", layer, c, dtype),
        expert_hyper=_hyper(files, f"{prefix}hc_ffn_", c),
        expert_norm=files.floats(f"{prefix}ffn_norm.weight", (c.hidden_size,), mx.float32),
        experts=_experts(files, f"{prefix}ffn.", layer, c, dtype),
    )


def _hyper(files: TensorFiles, prefix: str, c: ModelConfig) -> HyperWeights:
    n = c.hc_mult
    rows = 2 * n + n * n
    return hyper_weights(
        files.floats(f"{prefix}fn", (rows, n * c.hidden_size), mx.float32),
        files.floats(f"{prefix}base", (rows,), mx.float32),
        files.floats(f"{prefix}scale", (3,), mx.float32),
        c,
    )


def _attention(
    files: TensorFiles, prefix: str, layer: int, c: ModelConfig, dtype: mx.Dtype
) -> AttentionWeights:
    heads_width = c.num_attention_heads * c.head_dim
    inputs = [
        files.weight(f"{prefix}wq_a.weight", (c.q_lora_rank, c.hidden_size), dtype),
        files.weight(f"{prefix}wkv.weight", (c.head_dim, c.hidden_size), dtype),
    ]
    is_csa = c.layer_kinds[layer] == "csa"
    if is_csa:
        shape = (c.index_n_heads, c.hidden_size)
        inputs.append(files.weight(f"{prefix}indexer.weights_proj.weight", shape, dtype))
    per_group = heads_width // c.o_groups
    mixed = c.o_groups * c.o_lora_rank
    out_groups = files.weight(f"{prefix}wo_a.weight", (mixed, per_group), dtype)
    has_rows = c.layer_kinds[layer] != "sliding"
    kv_norm = files.floats(f"{prefix}kv_norm.weight", (c.head_dim,), mx.float32)
    sinks = files.floats(f"{prefix}attn_sink", (c.num_attention_heads,), mx.float32)
    pool = _pool(files, prefix, layer, c) if has_rows else None
    return AttentionWeights(
        inputs=joined(inputs),
        q_norm=files.floats(f"{prefix}q_norm.weight", (c.q_lora_rank,), mx.float32),
        kv_norm=kv_norm,
        q=files.weight(f"{prefix}wq_b.weight", (heads_width, c.q_lora_rank), dtype),
        q_scale=mx.full((c.head_dim,), c.head_dim**-0.5),
        sinks=sinks,
        score_bound=_score_bound([kv_norm] + ([pool.norm] if pool else []), sinks, c),
        out_groups=grouped(out_groups, c.o_groups),
        out=files.weight(f"{prefix}wo_b.weight", (c.hidden_size, mixed), dtype),
        pool=pool,
        index=_index(files, f"{prefix}indexer.", c, dtype) if is_csa else None,
    )


def _score_bound(norms: Sequence[mx.array], sinks: mx.array, c: ModelConfig) -> float:
    """A normed vector is at most sqrt(head_dim) long, times its largest norm weight; queries have
    no weight and are scaled by 1 / sqrt(head_dim). Two percent more for rounded rows."""
    largest = max(_largest(norm) for norm in norms)
    scores: float = 1.02 * c.head_dim**0.5 * largest
    if c.kv_simulation:
        scores *= 1.07  # half a step of three mantissa bits
    return max(scores, _largest(sinks))


def _largest(x: mx.array) -> float:
    largest: float = np.abs(np.array(x, dtype=np.float32)).max().item()
    return largest


def _pool(files: TensorFiles, prefix: str, layer: int, c: ModelConfig) -> PoolWeights:
    """The compressor; on CSA layers interleaved with the indexer's, as compressor.py reads it."""
    norm = files.floats(f"{prefix}compressor.norm.weight", (c.head_dim,), mx.float32)
    if c.layer_kinds[layer] == "hca":
        values, gates, bias = _pool_parts(files, f"{prefix}compressor.", c.head_dim, c.hca_ratio, c)
        return PoolWeights(mx.concatenate([values, gates]), bias, norm)
    row, key = 2 * c.head_dim, 2 * c.index_head_dim
    rows = _pool_parts(files, f"{prefix}compressor.", row, c.csa_ratio, c)
    keys = _pool_parts(files, f"{prefix}indexer.compressor.", key, c.csa_ratio, c)
    proj, bias_halves = [], []
    for part in (0, 1):  # values, gates
        for half in (0, 1):  # first channel set, second
            proj += [_half(rows[part], half, 0), _half(keys[part], half, 0)]
    for half in (0, 1):
        bias_halves.append(mx.concatenate([_half(rows[2], half, 1), _half(keys[2], half, 1)], 1))
    return PoolWeights(mx.concatenate(proj), mx.concatenate(bias_halves), norm)


def _pool_parts(
    files: TensorFiles, prefix: str, width: int, ratio: int, c: ModelConfig
) -> tuple[mx.array, mx.array, mx.array]:
    """(values and gates [width, hidden], position bias [ratio, width])."""
    return (
        files.floats(f"{prefix}wkv.weight", (width, c.hidden_size), mx.float32),
        files.floats(f"{prefix}wgate.weight", (width, c.hidden_size), mx.float32),
        files.floats(f"{prefix}ape", (ratio, width), mx.float32),
    )


def _half(x: mx.array, half: int, axis: int) -> mx.array:
    return mx.split(x, 2, axis=axis)[half]


def _index(files: TensorFiles, prefix: str, c: ModelConfig, dtype: mx.Dtype) -> IndexWeights:
    shape = (c.index_n_heads * c.index_head_dim, c.q_lora_rank)
    return IndexWeights(
        q=files.weight(f"{prefix}wq_b.weight", shape, dtype),
        norm=files.floats(f"{prefix}compressor.norm.weight", (c.index_head_dim,), mx.float32),
        rotation=hadamard(c.index_head_dim) if c.kv_simulation else None,
    )


def _experts(
    files: TensorFiles, prefix: str, layer: int, c: ModelConfig, dtype: mx.Dtype
) -> ExpertWeights:
    experts, wide, hidden = c.n_routed_experts, c.moe_intermediate_size, c.hidden_size
    table = bias = None
    if c.hash_routed[layer]:
        table = routing_table(files, f"{prefix}gate.tid2eid", c)
    elif f"{prefix}gate.bias" in files:
        bias = files.floats(f"{prefix}gate.bias", (experts,), mx.float32)
    shared = f"{prefix}shared_experts."
    gate_up, down = _routed(files, f"{prefix}experts.", c, dtype)
    return ExpertWeights(
        router=files.floats(f"{prefix}gate.weight", (experts, hidden), mx.float32),
        bias=bias,
        table=None if table is None else np.ascontiguousarray(table),
        gate_up=gate_up,
        down=down,
        shared_gate_up=joined(
            [files.weight(f"{shared}{w}.weight", (wide, hidden), dtype) for w in ("w1", "w3")]
        ),
        shared_down=files.weight(f"{shared}w2.weight", (hidden, wide), dtype),
    )


def routing_table(files: TensorFiles, name: str, c: ModelConfig) -> NDArray[np.int32]:
    """The experts of each token, [vocab, experts per token], where a layer has them in a table."""
    table = files.integers(name, (c.vocab_size, c.num_experts_per_tok))
    if table.min() < 0 or table.max() >= c.n_routed_experts:
        raise ModelFormatError(
            f"{files.directory}: {name} names an expert beyond the {c.n_routed_experts}; "
            "its config.json belongs to another model"
        )
    return table


def _routed(
    files: TensorFiles, prefix: str, c: ModelConfig, dtype: mx.Dtype
) -> tuple[Weight, Weight]:
    """(gate over up [experts, 2 * intermediate, hidden], down [experts, hidden, intermediate])."""
    experts, wide, hidden = c.n_routed_experts, c.moe_intermediate_size, c.hidden_size
    down = f"{prefix}down_proj.weight"
    if down not in files:  # DeepSeek's, one by one
        gate, up = (_stack(files, prefix, name, (wide, hidden), c, dtype) for name in ("w1", "w3"))
        return joined([gate, up]), _stack(files, prefix, "w2", (hidden, wide), c, dtype)
    if f"{prefix}gate_up_proj.weight" in files:
        name = f"{prefix}gate_up_proj.weight"
        gate_up = files.weight(name, (experts, 2 * wide, hidden), dtype)
    else:
        names = (f"{prefix}gate_proj.weight", f"{prefix}up_proj.weight")
        gate_up = joined([files.weight(name, (experts, wide, hidden), dtype) for name in names])
    return gate_up, files.weight(down, (experts, hidden, wide), dtype)


def _stack(
    files: TensorFiles,
    prefix: str,
    name: str,
    shape: tuple[int, int],
    c: ModelConfig,
    dtype: mx.Dtype,
) -> Weight:
    """One matrix of every expert, [experts, *shape]."""
    names = [f"{prefix}{expert}.{name}.weight" for expert in range(c.n_routed_experts)]
    whole = stacked([files.weight(own, shape, dtype) for own in names])
    if whole is None:
        raise ModelFormatError(
            f"{files.directory}: {prefix}*.{name} are in several formats; download it again"
        )
    mx.eval(arrays_of(whole) if isinstance(whole, Packed) else whole)  # the parts can go
    return whole


def arrays_of(weights: object) -> list[mx.array]:
    """Every array in a tree of frozen weights."""
    found = []
    for value in vars(weights).values():
        if isinstance(value, mx.array):
            found.append(value)
        elif isinstance(value, tuple):
            found += [part for part in value if isinstance(part, mx.array)]
            found += [a for part in value if is_dataclass(part) for a in arrays_of(part)]
        elif is_dataclass(value):
            found += arrays_of(value)
    return found
