"""`read_streams` and `write_streams` of `hyper`, each as one kernel (with the projection before it
as MLX's product). A published model calls them 86 times a token; as pure operations the Sinkhorn
iteration alone is forty products and forty divisions of sixteen numbers, and a GPU spends its time
on starting them. Signatures and results are those of `hyper`.
"""

from functools import lru_cache

import mlx.core as mx

from ds4_agent.engine.model.arrays import fp32, rms_norm
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.hyper import Mixing
from ds4_agent.engine.model.kernels.launch import Launch, Result, source
from ds4_agent.engine.model.parameters import HyperWeights

__all__ = ["READ", "WRITE", "read_streams", "suits", "write_streams"]

# Of 4,096 channels each thread has sixteen; eight simdgroups are enough to hide what reading takes.
THREADS = 256

READ = source("read_streams", ("streams", "logits", "base", "norm", "eps"), ("x", "post", "comb"))
WRITE = source("write_streams", ("streams", "y", "post", "comb"), ("out",))


def suits(config: ModelConfig) -> bool:
    """Whether the n x n matrix fits a simdgroup, and its rows are summed by halving."""
    return config.hc_mult in (1, 2, 4)


def read_streams(
    launch: Launch,
    streams: mx.array,
    weights: HyperWeights,
    norm: mx.array,
    config: ModelConfig,
) -> tuple[mx.array, Mixing]:
    """See `hyper.read_streams`."""
    tokens, n, width = streams.shape
    flat = fp32(streams).reshape(tokens, n * width)
    logits = rms_norm(flat, None, config.rms_norm_eps) @ weights.fn.T
    x, post, comb = launch(
        READ,
        [streams, logits, weights.base, norm, _eps(config.hc_eps, config.rms_norm_eps)],
        [
            Result((tokens, width), mx.float32),
            Result((tokens, n, 1), mx.float32),
            Result((tokens, n, n), mx.float32),
        ],
        template={"N": n, "ITERATIONS": config.hc_sinkhorn_iters},
        groups=(tokens, 1),
        threads=THREADS,
    )
    return x, Mixing(post, comb)


def write_streams(launch: Launch, streams: mx.array, y: mx.array, mixing: Mixing) -> mx.array:
    """See `hyper.write_streams`."""
    tokens, n, width = streams.shape
    (out,) = launch(
        WRITE,
        [streams, y, mixing.post, mixing.comb],
        [Result((tokens, n, width), streams.dtype)],
        template={"N": n, "S": streams.dtype},
        groups=(-(-width // THREADS), tokens),
        threads=THREADS,
    )
    return out


@lru_cache(maxsize=8)
def _eps(hyper: float, norm: float) -> mx.array:
    return mx.array([hyper, norm], dtype=mx.float32)
