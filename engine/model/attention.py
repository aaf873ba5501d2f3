"""Attention of one layer over the sliding window and the compressed rows of a state. In: the
normed stream of a chunk and the layer's state, or one token for each of several states (see
`arrays`). Out: the output and the next state. Queries are
taken in tiles; it never expands rows for all queries and never copies the history for a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.arrays import Array, cast, compact, fp32, library, rms_norm
from ds4_agent.engine.model.compressor import Pooled, compress
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.indexer import chosen_mask, chosen_rows, visibility
from ds4_agent.engine.model.operations import PURE, Operations
from ds4_agent.engine.model.packed import product
from ds4_agent.engine.model.parameters import AttentionWeights
from ds4_agent.engine.model.rope import Rotary, rotate
from ds4_agent.engine.model.rows import Rows
from ds4_agent.engine.model.simulate import round_index, round_kv
from ds4_agent.engine.model.softmax import Piece, merged
from ds4_agent.engine.model.state import LayerState
from ds4_agent.engine.model.tiles import QUERY_TILE, score_budget, spans

__all__ = ["Advanced", "Turns", "advance", "attend", "attend_each", "turns_of", "with_rows"]

# Up to so many times `index_topk` rows, attending to all under a mask costs less than gathering the
# chosen ones for each query; beyond, the work for a query no longer grows with the rows.
DENSE_ROWS = 3
# Up to so many rows, they and the window are attended to as one piece: one copy, fewer operations.
MERGED_ROWS = 2048


@dataclass(frozen=True)
class Turns:
    """Rotary factors of all tokens' positions, made once for all layers. [tokens, dim / 2]."""

    sliding: Array
    compressed: Array
    index: Array


@dataclass(frozen=True)
class _Queries:
    """What the queries of a chunk bring to the compressed rows of a layer."""

    q: Array  # [tokens, heads, head_dim] fp32, roped and scaled
    visible: NDArray[np.int64]  # [tokens]: how many compressed rows each may see
    index: tuple[Array, Array] | None  # queries [tokens, heads, dim], weights [tokens, heads]


def turns_of(
    positions: NDArray[np.int64], config: ModelConfig, rotary: Rotary, *, in_numpy: bool = False
) -> Turns:
    """The factors for `positions` [tokens], in MLX unless asked for in numpy."""
    sizes = (config.head_dim, config.index_head_dim)
    factors = [
        *rotary.factors(positions, sizes[:1], compressed=False),
        *rotary.factors(positions, sizes, compressed=True),
    ]
    return Turns(*(factors if in_numpy else map(mx.array, factors)))


@dataclass(frozen=True)
class Advanced:
    """A layer that has taken in the keys of a chunk. Its queries are still to attend to them."""

    state: LayerState  # after the chunk
    local: Array  # [rows, head_dim] stream dtype: the window before the chunk, then its own rows
    projected: Array  # [tokens, q_lora_rank + head_dim (+ index_n_heads)] of the chunk
    pooled: Pooled | None  # what closed in the chunk; None: sliding layer


def advance(
    x: Array,
    position: int,
    layer: int,
    state: LayerState,
    weights: AttentionWeights,
    turns: Turns,
    config: ModelConfig,
    rotary: Rotary,
) -> Advanced:
    """Take in `x` [tokens, hidden] fp32, normed, of the tokens from `position` on."""
    inputs = _inputs(x, weights, _turn(weights, turns), config)
    return _advanced(inputs, position, layer, state, weights, config, rotary)


def attend(
    advanced: Advanced,
    position: int,
    layer: int,
    weights: AttentionWeights,
    turns: Turns,
    config: ModelConfig,
    *,
    queries_from: int = 0,
    ops: Operations = PURE,
) -> Array:
    """[tokens - queries_from, hidden] stream dtype: what the chunk's tokens from `queries_from` on
    see in the layer. The chunk's first token stands at `position`."""
    projected, turn = advanced.projected[queries_from:], _turn(weights, turns)[queries_from:]
    tokens, start = projected.shape[0], position + queries_from
    visible = np.arange(start + 1, start + tokens + 1) // max(config.ratio(layer), 1)
    low, q = _local_queries(projected, weights, turn, config)
    index = None
    if _must_choose(advanced.state, config):
        index = _index_queries(low, projected, weights, turns.index[queries_from:], config)
    out = _attend_tiles(_Queries(q, visible, index), advanced, weights, config, ops)
    return _outputs(out, weights, turn, config)


def attend_each(
    x: Array,
    positions: NDArray[np.int64],
    layer: int,
    states: Sequence[LayerState],
    weights: AttentionWeights,
    turns: Turns,
    config: ModelConfig,
    rotary: Rotary,
) -> tuple[Array, list[LayerState]]:
    """One token of each of `states`, at `positions` [states]: (what it sees [states, 1, hidden],
    the layer's states after it), each with the bits that `advance` and `attend` give it alone.

    With fewer states than positions, the tokens beyond follow the one before them. `x` [states, 1,
    hidden] fp32 and `turns` [states, 1, dim / 2] are in numpy.
    """
    turn = _turn(weights, turns)
    inputs = _inputs(x, weights, turn, config)
    low, q = _local_queries(inputs.projected, weights, turn, config)
    visible = (positions[:, None] + 1) // max(config.ratio(layer), 1)
    index: tuple[Array, Array] | None = None  # of all, made when the first state needs them
    outs, after = np.empty_like(q), list[LayerState]()
    for i, position in enumerate(positions.tolist()):
        state = states[i] if i < len(states) else after[-1]
        advanced = _advanced(inputs.of(i), position, layer, state, weights, config, rotary)
        own = None
        if _must_choose(advanced.state, config):
            index = index or _index_queries(low, inputs.projected, weights, turns.index, config)
            own = index[0][i], index[1][i]
        outs[i] = _attend_tiles(_Queries(q[i], visible[i], own), advanced, weights, config)
        after.append(advanced.state)
    return _outputs(outs, weights, turn, config), after


@dataclass(frozen=True)
class _Inputs:
    """A layer's input behind its projections. [tokens, ...], or [states, 1, ...]."""

    projected: Array  # [..., q_lora_rank + head_dim (+ index_n_heads)] stream dtype
    kv: Array  # [..., head_dim] fp32, roped
    pooled: Array | None  # [..., values and gates] fp32; None: sliding layer

    def of(self, state: int) -> "_Inputs":
        """Those of one of several states, [1, ...]."""
        pooled = None if self.pooled is None else self.pooled[state]
        return _Inputs(self.projected[state], self.kv[state], pooled)


def _inputs(x: Array, weights: AttentionWeights, turn: Array, config: ModelConfig) -> _Inputs:
    c = config
    projected = product(cast(x, weights.inputs), weights.inputs)
    kv = fp32(projected[..., c.q_lora_rank : c.q_lora_rank + c.head_dim])
    kv = rotate(rms_norm(kv, weights.kv_norm, c.rms_norm_eps), turn)
    if c.kv_simulation:
        kv = round_kv(kv, c.qk_rope_head_dim)
    pooled = None if weights.pool is None else x @ weights.pool.proj.T
    return _Inputs(projected, kv, pooled)


def _advanced(
    inputs: _Inputs,
    position: int,
    layer: int,
    state: LayerState,
    weights: AttentionWeights,
    config: ModelConfig,
    rotary: Rotary,
) -> Advanced:
    """The layer's state with the keys of one chunk."""
    xp, kv = library(inputs.kv), cast(inputs.kv, state.window)
    local = xp.concatenate([state.window, kv], axis=0)
    kept = max(local.shape[0] - (config.sliding_window - 1), 0)
    after, pooled = replace(state, window=compact(local[kept:])), None
    if inputs.pooled is not None:
        ratio = config.ratio(layer)
        pooled = _pooled(inputs.pooled, position, ratio, after, weights, config, rotary)
        after = with_rows(after, pooled.rows, pooled.index_rows, pooled.pending)
    return Advanced(after, local, inputs.projected, pooled)


def _local_queries(
    projected: Array, weights: AttentionWeights, turn: Array, config: ModelConfig
) -> tuple[Array, Array]:
    """(low-rank form [..., q_lora_rank] stream dtype, queries [..., heads, head_dim] fp32)."""
    c = config
    low = rms_norm(projected[..., : c.q_lora_rank], weights.q_norm, c.rms_norm_eps)
    low = cast(low, weights.q)
    q = fp32(product(low, weights.q)).reshape(*low.shape[:-1], c.num_attention_heads, c.head_dim)
    return low, rotate(rms_norm(q, weights.q_scale, c.rms_norm_eps), turn[..., None, :])


def _outputs(out: Array, weights: AttentionWeights, turn: Array, config: ModelConfig) -> Array:
    """[..., hidden] stream dtype of what the heads give, [..., heads, head_dim] fp32."""
    out = cast(rotate(out, library(out).conj(turn)[..., None, :]), weights.inputs)
    lead = out.shape[:-2]
    groups = out.reshape(*lead, config.o_groups, -1).swapaxes(-2, -3)
    mixed = product(groups, weights.out_groups)
    return product(mixed.swapaxes(-2, -3).reshape(*lead, -1), weights.out)


def _turn(weights: AttentionWeights, turns: Turns) -> Array:
    return turns.sliding if weights.pool is None else turns.compressed


def _pooled(
    projected: Array,
    position: int,
    ratio: int,
    state: LayerState,
    weights: AttentionWeights,
    config: ModelConfig,
    rotary: Rotary,
) -> Pooled:
    """What closes in a chunk behind `state`."""
    assert weights.pool is not None
    assert state.pending is not None
    return compress(
        projected, state.pending, position, ratio, weights.pool, weights.index, config, rotary
    )


def with_rows(
    state: LayerState, new: Array | None, new_index: Array | None, pending: Array
) -> LayerState:
    """The state with the rows of the groups that closed. A token sees the row it completes."""
    assert state.rows is not None
    rows, index_rows = state.rows, state.index_rows
    if new is not None:
        rows = rows.append(cast(new, state.window))
    if new_index is not None and index_rows is not None:
        index_rows = index_rows.append(cast(new_index, state.window))
    return replace(state, pending=compact(pending), rows=rows, index_rows=index_rows)


def _must_choose(state: LayerState, config: ModelConfig) -> bool:
    """Whether the indexer has a say: not while all rows are taken anyway."""
    return state.index_rows is not None and state.index_rows.length > config.index_topk


def _index_queries(
    low: Array, projected: Array, weights: AttentionWeights, turn: Array, config: ModelConfig
) -> tuple[Array, Array]:
    """Index queries [..., heads, dim] and head weights [..., heads], fp32."""
    c = config
    assert weights.index is not None
    q = product(low, weights.index.q)
    q = q.reshape(*low.shape[:-1], c.index_n_heads, c.index_head_dim)
    q = rotate(fp32(q), turn[..., None, :])
    if weights.index.rotation is not None:
        q = round_index(q, weights.index.rotation)
    scale = c.index_head_dim**-0.5 * c.index_n_heads**-0.5
    return q, fp32(projected[..., c.q_lora_rank + c.head_dim :]) * scale


def _attend_tiles(
    queries: _Queries,
    advanced: Advanced,
    weights: AttentionWeights,
    config: ModelConfig,
    ops: Operations = PURE,
) -> Array:
    """[tokens, heads, head_dim] fp32."""
    tokens, heads, _ = queries.q.shape
    state, local = advanced.state, advanced.local
    rows, before = state.rows, local.shape[0] - tokens
    history = 0 if rows is None else min(rows.length, DENSE_ROWS * config.index_topk)
    if rows is not None and state.index_rows is None:
        history = rows.length
    keys = config.sliding_window + QUERY_TILE + history
    tile = max(min(QUERY_TILE, score_budget() // (heads * keys)), 1)
    outs = []
    for a, b in spans(tokens, tile):
        low = max(a + before + 1 - config.sliding_window, 0)
        high = b + before
        band = _band(b - a, high - low, config.sliding_window) if b - a > 1 else None
        q, pieces = queries.q[a:b], [Piece(local[low:high], band)]
        if rows is not None and rows.length:
            pieces += _history(queries, a, b, rows, state.index_rows, config, ops)
        if all(piece.keys.ndim == 2 for piece in pieces) and history <= MERGED_ROWS:
            pieces = [merged(q, pieces)]
        outs.append(ops.attend_pieces(q, pieces, weights.sinks, weights.score_bound))
    return outs[0] if len(outs) == 1 else library(local).concatenate(outs, axis=0)


@lru_cache(maxsize=64)
def _band(queries: int, keys: int, window: int) -> NDArray[np.float32]:
    """The last `queries` of `keys` positions: each sees itself and `window - 1` before. 1 or 0."""
    distance = np.arange(keys - queries, keys)[:, None] - np.arange(keys)
    seen = (distance >= 0) & (distance < window)
    return seen.astype(np.float32)


def _history(
    queries: _Queries,
    a: int,
    b: int,
    rows: Rows,
    index_rows: Rows | None,
    config: ModelConfig,
    ops: Operations,
) -> list[Piece]:
    """The compressed rows that queries a..b-1 attend to."""
    visible, top_k = queries.visible[a:b], config.index_topk
    if index_rows is None or queries.index is None:
        return _visible_pieces(rows, visible)
    index_q, index_weights = queries.index[0][a:b], queries.index[1][a:b]
    if rows.length <= DENSE_ROWS * top_k:
        mask = chosen_mask(
            index_q, index_weights, index_rows, visible, top_k, score=ops.index_scores
        )
        return _masked_pieces(rows.blocks(), mask)
    numbers, mask = chosen_rows(
        index_q, index_weights, index_rows, visible, top_k,
        score=ops.index_scores, top=ops.top_rows,
    )  # fmt: skip
    if isinstance(queries.q, np.ndarray):
        return [Piece(_gathered(rows, numbers), mask)]
    return [Piece(ops.taken_rows(rows.blocks(), numbers), mask)]


def _visible_pieces(rows: Rows, visible: NDArray[np.int64]) -> list[Piece]:
    """All rows that are visible to some query, masked only where not visible to all."""
    pieces, first = [], 0
    common, some = int(visible[0]), int(visible[-1])
    for block in rows.blocks():
        count = block.shape[0]
        shared, used = min(max(common - first, 0), count), min(max(some - first, 0), count)
        if shared:
            pieces.append(Piece(block[:shared], None))
        if used > shared:
            mask = visibility(visible, first + shared, used - shared)
            pieces.append(Piece(block[shared:used], mask.astype(np.float32)))
        first += count
    return pieces


def _masked_pieces(blocks: Sequence[Array], mask: Array) -> list[Piece]:
    pieces, first = [], 0
    for block in blocks:
        pieces.append(Piece(block, mask[:, first : first + block.shape[0]]))
        first += block.shape[0]
    return pieces


def _taken(
    blocks: Sequence[Array], numbers: NDArray[np.int64], out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`out` [1, top_k, head_dim], filled with the rows of ascending `numbers`."""
    first = start = 0
    for block in blocks:
        stop = int(np.searchsorted(numbers, first + len(block)))
        np.take(block, numbers[start:stop] - first, axis=0, out=out[0, start:stop], mode="clip")
        first, start = first + len(block), stop
    return out


def _gathered(rows: Rows, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    """`taken_rows` in numpy."""
    blocks, first = rows.blocks(), 0
    out = np.empty((*numbers.shape, blocks[0].shape[1]), np.float32)
    if len(numbers) == 1:  # decoding: all its rows are visible, so the numbers ascend
        return _taken(blocks, numbers[0], out)
    if rows.length <= numbers.size:  # joining the blocks is less than what is gathered
        whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return np.take(whole, numbers, axis=0, out=out, mode="clip")
    for block in blocks:
        inside = (numbers >= first) & (numbers < first + len(block))
        out[inside] = block[numbers[inside] - first]
        first += len(block)
    return out
