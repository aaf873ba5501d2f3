"""Softmax attention of a tile of queries over pieces of keys that are also the values, with a
learned sink for each head. In: queries and pieces. Out: the mix of the pieces, fp32. It knows
nothing of positions, layers or states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import mlx.core as mx
import numpy as np

from ds4_agent.engine.model.arrays import Array, fp32, library, like

__all__ = ["LARGEST_SCORE", "Piece", "attend_pieces", "merged"]

# Up to this bound on the scores their exponentials neither overflow nor vanish in fp32.
LARGEST_SCORE = 70.0


@dataclass(frozen=True)
class Piece:
    """Keys that are also the values: shared by all queries, or gathered for each."""

    keys: Array  # [keys, head_dim], or [queries, keys, head_dim]; any float dtype
    mask: Array | None
    """[queries, keys] fp32, 1 seen and 0 not; in numpy where it is a constant. None: every query
    sees every key."""


def merged(q: Array, pieces: Sequence[Piece]) -> Piece:
    """Pieces of shared keys as one, for `q` [queries, heads, head_dim]: fewer operations, for one
    copy of the keys."""
    if len(pieces) == 1:
        return pieces[0]
    xp, queries = library(q), q.shape[0]
    keys = xp.concatenate([like(q, piece.keys) for piece in pieces], axis=0)
    if all(piece.mask is None for piece in pieces):
        return Piece(keys, None)
    masks = [
        np.ones((queries, piece.keys.shape[0]), np.float32) if piece.mask is None else piece.mask
        for piece in pieces
    ]
    if all(isinstance(mask, np.ndarray) for mask in masks):
        return Piece(keys, np.concatenate(masks, axis=1))
    return Piece(keys, xp.concatenate([like(q, mask) for mask in masks], axis=1))


def attend_pieces(q: Array, pieces: Sequence[Piece], sinks: Array, bound: float) -> Array:
    """[queries, heads, head_dim] fp32 of `q`, alike, already scaled; `sinks` [heads] fp32.

    `bound` is the largest absolute value a score or sink can have: queries and keys are
    RMS-normalised, so it is known from the norm weights, and for published models it is small
    enough to leave out the usual subtraction of the largest score. Then each piece is finished by
    itself: no joint softmax, no concatenation of scores. The sink takes its share and gives
    nothing. Scores are fp32 whatever the keys are stored in; MLX's own attention operation, at head
    size 512, never fuses and rounds the scores to the input's dtype.
    """
    xp = library(q)
    keys = [fp32(like(q, piece.keys)) for piece in pieces]
    scores = [_products(q, rows.swapaxes(-1, -2)) for rows in keys]
    sinks = sinks[:, None]  # [heads, 1]
    if bound > LARGEST_SCORE:
        scores, sinks = _lowered(scores, pieces, sinks, bound)
    total, out = xp.exp(sinks), None
    for piece, rows, score in zip(pieces, keys, scores, strict=True):
        weights = _exponentials(score, piece.mask)
        total = total + _products(weights, xp.ones((weights.shape[-1], 1), dtype=xp.float32))
        part = _products(weights, rows)
        out = part if out is None else out + part
    assert out is not None, "a query always sees itself"
    return out / total


def _exponentials(scores: Array, mask: Array | None) -> Array:
    """exp of [queries, heads, keys], 0 where not seen. Scores in numpy are overwritten: they are
    large and of no further use."""
    if isinstance(scores, np.ndarray):
        np.exp(scores, out=scores)
        if mask is not None:
            np.multiply(scores, np.asarray(mask)[:, None], out=scores)
        return scores
    weights = mx.exp(scores)
    return weights if mask is None else weights * like(scores, mask)[:, None]


def _lowered(
    scores: Sequence[Array], pieces: Sequence[Piece], sinks: Array, bound: float
) -> tuple[list[Array], Array]:
    """Scores and sinks less the largest that each query and head sees."""
    xp, low = library(sinks), np.float32(-bound)
    visible = [
        score if piece.mask is None else xp.where(like(score, piece.mask)[:, None] > 0, score, low)
        for piece, score in zip(pieces, scores, strict=True)
    ]
    peak = reduce(xp.maximum, [xp.max(score, axis=-1, keepdims=True) for score in visible], sinks)
    return [xp.clip(score - peak, -80.0, 0.0) for score in visible], sinks - peak


def _products(x: Array, matrix: Array) -> Array:
    """x [queries, heads, a] times one matrix [a, b] or one for each query: [queries, heads, b]."""
    if matrix.ndim == 3:
        return x @ matrix
    # One product for all heads of all queries: they share their single key/value head.
    queries, heads, width = x.shape
    return (x.reshape(queries * heads, width) @ matrix).reshape(queries, heads, -1)
