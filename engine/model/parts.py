"""Cuts a chunk into parts that a CPU computes side by side. MLX runs a CPU stream on one thread
and only BLAS uses the others; with a stream for each part, all of a layer does. In: a number of
tokens. Out: spans with their streams; one span on a GPU.
"""

import threading
from collections.abc import Iterator, Sequence

import mlx.core as mx

from ds4_agent.engine.blas import usable_cores
from ds4_agent.engine.model.tiles import on_cpu, spans

__all__ = ["part_spans", "start_parts"]

PART_TOKENS = 64  # fewer are not worth a stream
MOST_PARTS = 4

# Streams belong to the thread that made them.
_own = threading.local()


def part_spans(tokens: int) -> Iterator[tuple[int, int, mx.Stream]]:
    """(start, stop, stream) of the parts of `tokens`; the first on the default stream."""
    count = min(usable_cores(), MOST_PARTS, tokens // PART_TOKENS) if on_cpu() else 1
    size = -(-tokens // max(count, 1))
    for (start, stop), stream in zip(spans(tokens, size), _streams(count), strict=False):
        yield start, stop, stream


def start_parts(parts: Sequence[object], arrays: Sequence[mx.array]) -> None:
    """Begin to compute `arrays` where there are several parts, so that none waits for the rest."""
    if len(parts) > 1:
        mx.async_eval(*arrays)  # type: ignore[no-untyped-call]


def _streams(count: int) -> list[mx.Stream]:
    """The default stream and as many of this thread's own as are needed."""
    own: list[mx.Stream] = getattr(_own, "streams", [])
    while len(own) < count - 1:
        own.append(mx.new_stream(mx.default_device()))
    _own.streams = own
    return [mx.default_stream(mx.default_device()), *own]
