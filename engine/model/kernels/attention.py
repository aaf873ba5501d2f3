"""`attend_pieces` of `softmax` as a kernel, for few queries. Signature and result are those of the
pure operation.

For many queries, a prefill, this falls back to the pure operation: a matrix product reads each key
once for the 64 heads of all queries that share it, the kernel once a head. For the few of a
decoding step there is nothing to share but heads, and the pure operation's dozen of starts, its
fp32 copy of the keys and its scores in memory are what takes time.
"""

from collections.abc import Sequence

import mlx.core as mx

from ds4_agent.engine.model.arrays import like
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.kernels.launch import Launch, Result, source
from ds4_agent.engine.model.softmax import Piece
from ds4_agent.engine.model.softmax import attend_pieces as pure_attend_pieces

__all__ = ["ATTEND", "MOST_QUERIES", "attend_pieces", "suits"]

MOST_QUERIES = 8  # a decoding step, or the check of a few drafted tokens
THREADS = 512  # see the kernel
LANES = 32

ATTEND = source("attend_piece", ("q", "keys", "mask", "carry", "sums"), ("out", "carried"))


def suits(config: ModelConfig) -> bool:
    """Whether the lanes of a simdgroup can share the channels of a head."""
    return config.head_dim % LANES == 0


def attend_pieces(
    launch: Launch, q: mx.array, pieces: Sequence[Piece], sinks: mx.array, bound: float
) -> mx.array:
    """See `softmax.attend_pieces`."""
    queries, heads, width = q.shape
    if queries > MOST_QUERIES:
        pure: mx.array = pure_attend_pieces(q, pieces, sinks, bound)
        return pure
    sums, carry = q, sinks  # the first piece does not read the sums, and the sinks in the carry
    for number, piece in enumerate(pieces):
        keys = like(q, piece.keys)
        sums, carry = launch(
            ATTEND,
            [q, keys, q if piece.mask is None else like(q, piece.mask), carry, sums],
            [Result((queries, heads, width), mx.float32), Result((queries, heads, 2), mx.float32)],
            template={
                "WIDTH": width,
                "OWN_KEYS": keys.ndim == 3,
                "MASKED": piece.mask is not None,
                "FIRST": number == 0,
                "LAST": number == len(pieces) - 1,
            },
            groups=(heads, queries),
            threads=THREADS,
        )
    return sums
