"""Nano's forward pass for training: DeepSeek V4, equal to transformers' to 1e-4 in fp32.

In: weights by transformers' names and one `Batch` (a prefix shared by all rows, and the rows).
Out: the normed hidden states [tokens, hidden]. Everything that is per token runs on one flat
[tokens, …] axis: first the prefix, once, then all rows; only attention and compression see rows.
What the layers keep of thousands of tokens before the prefix may be given (`Kept`, training.front):
it is attended to and gets no gradient.
The indexer is left out: below `index_topk` groups it chooses everything and has no gradient.

Large products may be computed in bf16 (`products`), which is several times faster on a processor
that has instructions for it. All else is fp32: weights, norms, softmax, router, hyper-connections.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from training.config import NanoConfig
from training.sinkhorn import sinkhorn

Weights = dict[str, Tensor]

# Queries per block of the banded window attention: a block sees window + BLOCK keys.
BLOCK = 64


@dataclass(frozen=True)
class Shape:
    """`prefix` tokens shared by `rows` rows of `length` tokens each; multiples of 128."""

    prefix: int
    rows: int
    length: int

    @property
    def tokens(self) -> int:
        return self.prefix + self.rows * self.length


@dataclass(frozen=True)
class Rotation:
    """Rotary angles of the flat token axis, [tokens, rope_dim / 2] float32."""

    cos: Tensor
    sin: Tensor


class Kept(NamedTuple):
    """What a layer keeps of the tokens before those of a batch; all constants to the gradient.

    cos, sin [tokens, rope_dim / 2]: angles of the batch's tokens, which continue the positions;
    window [window, head_dim]: keys of the last tokens; pooled [capacity, head_dim]: compressed
    rows, the first `groups` of which are there (a tensor: one compiled graph for all lengths);
    before_kv, before_gate [rate, head_dim]: the first series of the last group, where rows overlap.
    """

    cos: Tensor
    sin: Tensor
    window: Tensor
    pooled: Tensor | None = None
    groups: Tensor | None = None
    before_kv: Tensor | None = None
    before_gate: Tensor | None = None


class Added(NamedTuple):
    """What a batch of one row adds to a layer's `Kept`: its keys [tokens, head_dim], its compressed
    rows [groups, head_dim], and the first series of the last group."""

    keys: Tensor
    pooled: Tensor | None
    before_kv: Tensor | None
    before_gate: Tensor | None


LayerFunction = Callable[..., tuple[Tensor, Tensor, Added]]


class Model:
    """The forward pass for one config; layers are compiled per kind and shape when asked."""

    def __init__(
        self, config: NanoConfig, *, compiled: bool, products: torch.dtype = torch.float32
    ) -> None:
        self.config = config
        self.products = products
        # Three kinds of layers, with each of two sizes of fronts and without.
        torch._dynamo.config.recompile_limit = 16
        self.layer: LayerFunction = torch.compile(layer, dynamic=False) if compiled else layer
        self.head: Callable[..., Tensor] = (
            torch.compile(collapse, dynamic=False) if compiled else collapse
        )

    def hidden(
        self, weights: Weights, ids: Tensor, shape: Shape, front: Sequence[Kept] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """ids [tokens] int64 -> hidden [tokens, hidden], and per layer the load of each expert.
        `front`: what each layer keeps of the tokens before these."""
        x, loads, _ = self.layers(weights, ids, shape, front)
        return self.head(x, head_weights(weights), self.config), loads

    def layers(
        self, weights: Weights, ids: Tensor, shape: Shape, front: Sequence[Kept] | None
    ) -> tuple[Tensor, list[Tensor], list[Added]]:
        """The streams behind the last layer, and per layer the expert loads and what it adds."""
        embedded = functional.embedding(
            ids, weights["model.embed_tokens.weight"]
        )  # [tokens, hidden]
        x = embedded.unsqueeze(1).expand(-1, self.config.streams, -1).contiguous()
        loads, added = [], []
        for index in range(len(self.config.layer_types)):
            own = layer_weights(weights, index)
            routes = None
            if self.config.is_hashed(index):
                routes = hash_routes(own.pop("mlp.gate.tid2eid"), ids, self.config.experts)
            rate = self.config.rate(index)
            kept = front[index] if front is not None else None
            x, load, new = self.layer(x, own, routes, rate, self.config, shape, self.products, kept)
            loads.append(load)
            added.append(new)
        return x, loads, added


def layer_weights(weights: Weights, index: int) -> Weights:
    """The weights of one layer without its prefix; the indexer's are not used in training."""
    prefix = f"model.layers.{index}."
    return {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix) and ".indexer." not in name
    }


def head_weights(weights: Weights) -> Weights:
    names = ("model.hc_head.hc_fn", "model.hc_head.hc_base", "model.hc_head.hc_scale")
    return {name: weights[name] for name in (*names, "model.norm.weight")}


def hash_routes(table: Tensor, ids: Tensor, experts: int) -> Tensor:
    """[vocab, k] expert ids -> [tokens, experts] float32, 1 where the token's expert is."""
    return functional.one_hot(table[ids], experts).sum(1).float()


def layer(
    x: Tensor,
    weights: Weights,
    routes: Tensor | None,
    rate: int,
    config: NanoConfig,
    shape: Shape,
    products: torch.dtype,
    kept: Kept | None = None,
) -> tuple[Tensor, Tensor, Added]:
    """One decoder layer: x [tokens, streams, hidden] -> the same, expert loads [experts], and what
    its first row adds to a front."""
    collapsed, post, mixing = connect(x, weights, "attn_hc.", config)
    normed = rms_norm(collapsed, weights["input_layernorm.weight"], config.norm_eps)
    attended, added = attention(normed, weights, rate, config, shape, products, kept)
    x = expand(x, attended, post, mixing)
    collapsed, post, mixing = connect(x, weights, "ffn_hc.", config)
    normed = rms_norm(collapsed, weights["post_attention_layernorm.weight"], config.norm_eps)
    out, load = experts(normed, weights, routes, config, products)
    return expand(x, out, post, mixing), load, added


def product(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """x [.., k] times weight [m, k] transposed, computed in `dtype`, fp32 out."""
    return functional.linear(x.to(dtype), weight.to(dtype)).float()


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """RMS norm over the last axis, with or without weight."""
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return normed if weight is None else normed * weight


# Hyper-connections


def connect(
    x: Tensor, weights: Weights, name: str, config: NanoConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """x [tokens, n, hidden] -> block input [tokens, hidden], post [.., n], mixing [.., n, n]."""
    n = config.streams
    flat = x.flatten(1)
    scale, base = weights[name + "scale"], weights[name + "base"]
    # The norm is one factor per token: it may come after the projection.
    inverse = torch.rsqrt(flat.square().mean(-1, keepdim=True) + config.norm_eps)
    mixes = functional.linear(flat, weights[name + "fn"]) * inverse  # [tokens, 2n + n * n]
    pre = torch.sigmoid(mixes[:, :n] * scale[0] + base[:n]) + config.hc_eps
    post = 2 * torch.sigmoid(mixes[:, n : 2 * n] * scale[1] + base[n : 2 * n])
    logits = mixes[:, 2 * n :] * scale[2] + base[2 * n :]
    mixing = sinkhorn(logits, config.sinkhorn_iterations, config.hc_eps).view(-1, n, n)
    return (pre.unsqueeze(-1) * x).sum(1), post, mixing


def expand(x: Tensor, out: Tensor, post: Tensor, mixing: Tensor) -> Tensor:
    """New stream k = post[k] * out + sum over j of mixing[j, k] * stream j.

    Written out: as many 4x4 matrix products it would be dozens of times slower.
    """
    streams = x.shape[1]
    mixed = []
    for k in range(streams):
        stream = post[:, k, None] * out
        for j in range(streams):
            stream = stream + mixing[:, j, k, None] * x[:, j]
        mixed.append(stream)
    return torch.stack(mixed, 1)


def collapse(x: Tensor, weights: Weights, config: NanoConfig) -> Tensor:
    """The final streams [tokens, n, hidden] -> normed hidden states [tokens, hidden]."""
    flat = x.flatten(1)
    inverse = torch.rsqrt(flat.square().mean(-1, keepdim=True) + config.norm_eps)
    mixes = functional.linear(flat, weights["model.hc_head.hc_fn"]) * inverse
    scale, base = weights["model.hc_head.hc_scale"], weights["model.hc_head.hc_base"]
    pre = torch.sigmoid(mixes * scale + base) + config.hc_eps
    return rms_norm((pre.unsqueeze(-1) * x).sum(1), weights["model.norm.weight"], config.norm_eps)


# Attention


@functools.cache
def rotation(shape: Shape, rope_dim: int, theta: float, device: torch.device) -> Rotation:
    """Angles of every token of the flat axis; rows continue where the prefix ends."""
    return rotation_from(0, shape, rope_dim, theta, device)


def rotation_from(
    start: int, shape: Shape, rope_dim: int, theta: float, device: torch.device
) -> Rotation:
    """The same for a prefix whose first token stands at position `start`."""
    first = torch.arange(shape.prefix, device=device)
    row = torch.arange(shape.prefix, shape.prefix + shape.length, device=device)
    positions = torch.cat([first, row.repeat(shape.rows)]).float() + start
    powers = torch.arange(0, rope_dim, 2, device=device).float() / rope_dim
    angles = positions[:, None] / theta**powers
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Interleaved rotary embedding of the last 2 * cos.shape[-1] channels of x."""
    rope = 2 * cos.shape[-1]
    still, turned = x[..., :-rope], x[..., -rope:].unflatten(-1, (-1, 2))
    a, b = turned[..., 0], turned[..., 1]
    turned = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    return torch.cat([still, turned], -1)


def attention(
    a: Tensor,
    weights: Weights,
    rate: int,
    config: NanoConfig,
    shape: Shape,
    products: torch.dtype,
    kept: Kept | None,
) -> tuple[Tensor, Added]:
    """Window (and compressed) attention of all tokens: a [tokens, hidden] -> [tokens, hidden], and
    what the first row adds to a front."""
    heads, head_dim = config.heads, config.head_dim
    theta = config.compress_rope_theta if rate else config.rope_theta
    turn = Rotation(*kept[:2]) if kept else rotation(shape, config.rope_dim, theta, a.device)
    cos, sin = turn.cos[:, None], turn.sin[:, None]
    q = product(a, weights["self_attn.q_a_proj.weight"], products)
    q = rms_norm(q, weights["self_attn.q_a_norm.weight"], config.norm_eps)
    q = product(q, weights["self_attn.q_b_proj.weight"], products).view(-1, heads, head_dim)
    q = rotate(rms_norm(q, None, config.norm_eps), cos, sin) * head_dim**-0.5
    kv = product(a, weights["self_attn.kv_proj.weight"], products)
    kv = rms_norm(kv, weights["self_attn.kv_norm.weight"], config.norm_eps)
    kv = rotate(kv, turn.cos, turn.sin)  # [tokens, head_dim], keys and values in one
    pooled, series = None, (None, None)
    if rate:
        pooled, series = compress(a, weights, rate, config, shape, turn, products, kept)
    q, kv = q.to(products), kv.to(products)
    sinks = weights["self_attn.sinks"]
    prefix, rows = shape.prefix, (shape.rows, shape.length)
    if kept is None:
        left = kv.new_zeros(1, config.window, head_dim)  # before position 0: masked
        start = 0
    else:
        left = kept.window.unsqueeze(0).to(kv.dtype)
        start = config.window  # all of the window is there
    first = attend(
        q[:prefix].view(1, prefix, heads, head_dim),
        torch.cat([left, kv[:prefix].unsqueeze(0)], 1),
        pooled[:1, : prefix // rate] if pooled is not None else None,
        sinks, start, rate, config, kept,
    )  # fmt: skip
    before = torch.cat([left, kv[:prefix].unsqueeze(0)], 1)[:, -config.window :]
    left = before.expand(shape.rows, -1, -1)
    rest = attend(
        q[prefix:].view(*rows, heads, head_dim),
        torch.cat([left, kv[prefix:].view(*rows, head_dim)], 1),
        pooled,
        sinks, start + prefix, rate, config, kept,
    )  # fmt: skip
    out = torch.cat([first.flatten(0, 1), rest.flatten(0, 1)])
    out = rotate(out, cos, -sin)  # values carry rotation too: turn it back at the query
    groups = config.o_groups
    into = weights["self_attn.o_a_proj.weight"].to(products).view(groups, config.o_lora_rank, -1)
    out = out.to(products).view(-1, groups, into.shape[-1])
    out = torch.bmm(out.transpose(0, 1), into.transpose(1, 2)).transpose(0, 1).flatten(1)
    own = prefix + shape.length  # the tokens of the prefix and of the first row
    added = Added(kv[:own], pooled[0] if pooled is not None else None, *series)
    return product(out, weights["self_attn.o_b_proj.weight"], products), added


def attend(
    q: Tensor,
    kv: Tensor,
    pooled: Tensor | None,
    sinks: Tensor,
    start: int,
    rate: int,
    config: NanoConfig,
    kept: Kept | None,
) -> Tensor:
    """Softmax over window, compressed rows and sink, for queries at positions start, start + 1, …
    Behind a front, positions count from the window before the first token.

    q [rows, length, heads, head_dim], scaled; kv [rows, window + length, head_dim], the window
    before the first query in front; pooled [rows, groups, head_dim]; q and kv alike in dtype, which
    is that of the products -> [rows, length, heads, head_dim] fp32.
    Heads share one key: they are folded into the query axis, which makes one large product of
    many small ones. No maximum is subtracted: query and key are normed, scores stay small.
    """
    rows, length, heads, head_dim = q.shape
    blocks, width = length // BLOCK, config.window + BLOCK
    band = torch.stack([kv[:, i * BLOCK : i * BLOCK + width] for i in range(blocks)], 1)
    scores = torch.matmul(q.reshape(rows, blocks, BLOCK * heads, head_dim), band.transpose(2, 3))
    # [blocks, BLOCK, 1, width]
    visible = window_mask(blocks, config.window, start, q.device)[:, :, None]
    scores = scores.view(rows, blocks, BLOCK, heads, width)
    weights = torch.where(visible, scores.float().exp(), 0.0)
    total = weights.sum(-1).view(rows, length, heads) + sinks.exp()
    out = torch.matmul(weights.to(q.dtype).view(rows, blocks, BLOCK * heads, width), band)
    out = out.float().view(rows, length, heads, head_dim)
    if pooled is not None:
        groups = pooled.shape[1]
        pooled = pooled.to(q.dtype)
        scores = torch.matmul(q.reshape(rows, length * heads, head_dim), pooled.transpose(1, 2))
        scores = scores.view(rows, length, heads, groups).float()
        own = start if kept is None else start - config.window  # since the first own group
        ready = (torch.arange(own, own + length, device=q.device) + 1) // rate
        group = torch.arange(groups, device=q.device)
        visible = group < ready[:, None, None]  # [length, 1, groups]
        weights = torch.where(visible, scores.exp(), 0.0)
        total = total + weights.sum(-1)
        weights = weights.to(q.dtype).view(rows, length * heads, groups)
        out = out + torch.matmul(weights, pooled).float().view(rows, length, heads, head_dim)
    if kept is not None and kept.pooled is not None and kept.groups is not None:
        rows_before = kept.pooled.to(q.dtype)
        scores = torch.matmul(q.reshape(-1, head_dim), rows_before.transpose(0, 1)).float()
        visible = torch.arange(rows_before.shape[0], device=q.device) < kept.groups
        weights = torch.where(visible, scores.exp(), 0.0)  # [rows * length * heads, capacity]
        total = total + weights.sum(-1).view(rows, length, heads)
        summed = torch.matmul(weights.to(q.dtype), rows_before)
        out = out + summed.float().view(rows, length, heads, head_dim)
    return out / total.unsqueeze(-1)


def window_mask(blocks: int, window: int, start: int, device: torch.device) -> Tensor:
    """[blocks, BLOCK, window + BLOCK] bool: key in the query's window and not before 0."""
    query = torch.arange(BLOCK, device=device)[:, None] + window
    key = torch.arange(window + BLOCK, device=device)
    band = (key <= query) & (key > query - window)
    block = torch.arange(blocks, device=device)[:, None]
    position = start - window + BLOCK * block + key
    return band & (position >= 0)[:, None]


def compress(
    a: Tensor,
    weights: Weights,
    rate: int,
    config: NanoConfig,
    shape: Shape,
    turn: Rotation,
    products: torch.dtype,
    kept: Kept | None,
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """Compressed rows of prefix and row: [rows, (prefix + length) / rate, head_dim]; and the first
    series (values, gates) of the first row's last group, where the next group needs it."""
    name = "self_attn.compressor."
    kv = product(a, weights[name + "kv_proj.weight"], products)
    gate = product(a, weights[name + "gate_proj.weight"], products)
    prefix_groups = shape.prefix // rate

    def grouped(x: Tensor) -> Tensor:  # [tokens, d] -> [rows, groups, rate, d], prefix repeated
        first = x[: shape.prefix].view(1, prefix_groups, rate, -1)
        rest = x[shape.prefix :].view(shape.rows, shape.length // rate, rate, -1)
        return torch.cat([first.expand(shape.rows, -1, -1, -1), rest], 1)

    last: tuple[Tensor | None, Tensor | None] = (None, None)
    kv, gate = grouped(kv), grouped(gate) + weights[name + "position_bias"]
    if rate == config.csa_rate:
        # Two series: a group is the first series of the group before and its own second.
        size = config.head_dim
        last = (kv[0, -1, :, :size], gate[0, -1, :, :size])
        before = functional.pad(kv[:, :-1, :, :size], (0, 0, 0, 0, 1, 0))
        gates = functional.pad(gate[:, :-1, :, :size], (0, 0, 0, 0, 1, 0), value=-1e30)
        if kept is not None and kept.before_kv is not None and kept.before_gate is not None:
            first = (shape.rows, 1, rate, size)
            before = torch.cat([kept.before_kv.expand(first), before[:, 1:]], 1)
            gates = torch.cat([kept.before_gate.expand(first), gates[:, 1:]], 1)
        kv = torch.cat([before, kv[..., size:]], 2)
        gate = torch.cat([gates, gate[..., size:]], 2)
    pooled = (kv * gate.softmax(2)).sum(2)
    pooled = rms_norm(pooled, weights[name + "kv_norm.weight"], config.norm_eps)
    one_row = shape.prefix + shape.length  # the angles of the prefix and of the first row
    return rotate(pooled, turn.cos[:one_row:rate], turn.sin[:one_row:rate]), last


# Experts


def experts(
    m: Tensor,
    weights: Weights,
    routes: Tensor | None,
    config: NanoConfig,
    products: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Routed and shared experts: m [tokens, hidden] -> the same, and expert loads [experts].

    All experts are computed and the unused weighted with 0: with two of four in use that is
    faster on CPU than gathering.
    """
    count, width, limit = config.experts, config.expert_width, config.swiglu_limit
    scores = torch.sqrt(functional.softplus(functional.linear(m, weights["mlp.gate.weight"])))
    if routes is None:
        ranked = scores.detach() + weights["mlp.gate.e_score_correction_bias"]
        least = ranked.topk(config.experts_per_token, -1).values[:, -1:]
        routes = (ranked >= least).float()
    share = scores * routes
    share = share / (share.sum(-1, keepdim=True) + 1e-20) * config.routed_scale
    into = weights["mlp.experts.gate_up_proj"].flatten(0, 1)
    both = product(m, into, products).view(-1, count, 2, width)
    inner = functional.silu(both[:, :, 0].clamp(max=limit)) * both[:, :, 1].clamp(-limit, limit)
    inner = (inner * share.unsqueeze(-1)).flatten(1)  # [tokens, experts * width]
    back = weights["mlp.experts.down_proj"].permute(1, 0, 2).flatten(1)
    gate = product(m, weights["mlp.shared_experts.gate_proj.weight"], products).clamp(max=limit)
    up = product(m, weights["mlp.shared_experts.up_proj.weight"], products).clamp(-limit, limit)
    down = weights["mlp.shared_experts.down_proj.weight"]
    shared = product(functional.silu(gate) * up, down, products)
    return product(inner, back, products) + shared, routes.sum(0)
