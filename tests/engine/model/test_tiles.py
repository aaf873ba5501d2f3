"""No tensor comes near 2^31 elements, where MLX's indexing breaks without a word: the graph of a
chunk at a context of 1,048,576 tokens, sizes as published, is built and not evaluated."""

import math

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model import indexer, tiles
from ds4_agent.engine.model.attention import advance, attend, turns_of
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.parameters import AttentionWeights, IndexWeights, PoolWeights
from ds4_agent.engine.model.prefill import CHUNK_TOKENS
from ds4_agent.engine.model.rope import Rotary
from ds4_agent.engine.model.rows import FULL_ROWS, Rows, block_sizes
from ds4_agent.engine.model.softmax import LARGEST_SCORE
from ds4_agent.engine.model.state import LayerState

CONTEXT = 1_048_576
# A thousandth of a chunk's [queries, heads, context]; a 16th of what MLX can index.
LARGEST = 1 << 27
LAYERS = {"sliding": 0, "csa": 2, "hca": 3}

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
        "max_position_embeddings": CONTEXT,
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


def attention_weights(kind, bound):
    """Lazy zeros of the published shapes; nothing is ever allocated."""
    c = PUBLISHED
    inputs, pool, index = c.q_lora_rank + c.head_dim, None, None
    if kind == "hca":
        proj, bias = mx.zeros((2 * c.head_dim, c.hidden_size)), mx.zeros((c.hca_ratio, c.head_dim))
        pool = PoolWeights(proj, bias, mx.zeros(c.head_dim))
    if kind == "csa":
        width = c.head_dim + c.index_head_dim
        proj, bias = mx.zeros((4 * width, c.hidden_size)), mx.zeros((2 * c.csa_ratio, width))
        pool = PoolWeights(proj, bias, mx.zeros(c.head_dim))
        q = mx.zeros((c.index_n_heads * c.index_head_dim, c.q_lora_rank))
        index = IndexWeights(q, mx.zeros(c.index_head_dim), None)
        inputs += c.index_n_heads
    heads_width, mixed = c.num_attention_heads * c.head_dim, c.o_groups * c.o_lora_rank
    return AttentionWeights(
        inputs=mx.zeros((inputs, c.hidden_size)),
        q_norm=mx.zeros(c.q_lora_rank),
        kv_norm=mx.zeros(c.head_dim),
        q=mx.zeros((heads_width, c.q_lora_rank)),
        q_scale=mx.zeros(c.head_dim),
        sinks=mx.zeros(c.num_attention_heads),
        score_bound=bound,
        out_groups=mx.zeros((c.o_groups, c.o_lora_rank, heads_width // c.o_groups)),
        out=mx.zeros((c.hidden_size, mixed)),
        pool=pool,
        index=index,
    )


def lazy_rows(count, width):
    *blocks, last = (mx.zeros((size, width)) for size in block_sizes(count))
    full = count // FULL_ROWS
    return Rows(tuple(blocks[:full]), tuple(blocks[full:]), last)


def layer_state(kind, position):
    c = PUBLISHED
    window, ratio = mx.zeros((c.sliding_window - 1, c.head_dim)), c.ratio(LAYERS[kind])
    if kind == "sliding":
        return LayerState(window, None, None, None)
    rows = lazy_rows(position // ratio, c.head_dim)
    if kind == "hca":
        return LayerState(window, mx.zeros((position % ratio, 2 * c.head_dim)), rows, None)
    pending = mx.zeros((ratio + position % ratio, 4 * (c.head_dim + c.index_head_dim)))
    return LayerState(window, pending, rows, lazy_rows(position // ratio, c.index_head_dim))


def largest_of_graph(function, x):
    """(elements, name and shape) of the largest tensor that any operation of the graph makes."""
    found = []

    def note(event):
        if event["type"] == "primitive":
            name = event["name"]
            found.extend((math.prod(shape), name, shape) for _, shape, _ in event["outputs"])

    mx.export_function(note, function, x)
    return max(found)


@pytest.mark.parametrize("bound", [30.0, 2 * LARGEST_SCORE])
@pytest.mark.parametrize(
    ("kind", "tokens", "budget"),
    [
        ("sliding", CHUNK_TOKENS, tiles.CPU_SCORES),
        ("hca", CHUNK_TOKENS, tiles.GPU_SCORES),
        ("hca", 64, tiles.CPU_SCORES),
        ("csa", CHUNK_TOKENS, tiles.GPU_SCORES),
        ("csa", 16, tiles.CPU_SCORES),
    ],
)
def test_no_tensor_is_large_at_a_million_tokens(kind, tokens, budget, bound, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_SCORES", budget)
    monkeypatch.setattr(tiles, "GPU_SCORES", budget)
    # On a CPU numpy chooses the rows, 64 queries' scores at a time; here it is MLX.
    monkeypatch.setattr(indexer, "on_cpu", lambda: False)
    # MLX cannot export this operation; its result has the shape of its input.
    monkeypatch.setattr(mx, "contiguous", lambda x: x)
    position, layer = CONTEXT - tokens, LAYERS[kind]
    rotary = Rotary.of(PUBLISHED)
    state, weights = layer_state(kind, position), attention_weights(kind, bound)
    turns = turns_of(np.arange(position, position + tokens), PUBLISHED, rotary)

    def layer_of(x):
        advanced = advance(x, position, layer, state, weights, turns, PUBLISHED, rotary)
        return attend(advanced, position, layer, weights, turns, PUBLISHED)

    largest, name, shape = largest_of_graph(layer_of, mx.zeros((tokens, PUBLISHED.hidden_size)))

    assert PUBLISHED.layer_kinds[layer] == kind
    assert largest <= LARGEST, f"{name} makes {list(shape)}"


def test_no_block_of_rows_is_large():
    assert FULL_ROWS * PUBLISHED.head_dim <= LARGEST


def test_the_streams_of_a_chunk_are_not_large():
    c = PUBLISHED
    assert CHUNK_TOKENS * c.hc_mult * c.hidden_size <= LARGEST
    assert CHUNK_TOKENS * c.num_experts_per_tok * 2 * c.moe_intermediate_size <= LARGEST
