"""Measures this engine on a checkpoint directory, through the product's own Context: prefill,
decode, fork and rewind at each length. `python -m bench.ours DIRECTORY LENGTH…` prints one JSON
list. Runs in a process of its own, so that nothing else holds cores or memory.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench.figures import DECODED, Speed, prompt_ids
from ds4_agent.engine.api import Context, Sampling
from ds4_agent.engine.local import ModelEngine

REPEATS = 3  # of what takes little time; the median counts
GREEDY = Sampling(temperature=0.0)


def measure(directory: Path, lengths: list[int]) -> list[Speed]:
    """One row a length, shortest first."""
    engine = ModelEngine(directory, speculate="off")  # every token a pass of its own
    try:
        _once(engine.new_context(), prompt_ids(256))  # warm: caches, threads, kernels
        return [_at(engine, prompt_ids(length)) for length in sorted(lengths)]
    finally:
        engine.close()


def _at(engine: ModelEngine, ids: list[int]) -> Speed:
    runs = [_once(engine.new_context(), ids) for _ in range(REPEATS)]
    prefill, decode = (median(column) for column in zip(*runs, strict=True))
    context = engine.new_context()
    context.extend(ids)
    place = context.checkpoint()
    _decode(context)
    return Speed(
        tokens=len(ids),
        prefill=prefill,
        decode=decode,
        fork_ms=_milliseconds(context.fork),
        rewind_ms=_milliseconds(lambda: context.rewind(place)),
    )


def _once(context: Context, ids: list[int]) -> tuple[float, float]:
    began = time.perf_counter()
    context.extend(ids)
    prefill = len(ids) / (time.perf_counter() - began)
    return prefill, _decode(context)


def _decode(context: Context) -> float:
    """Tokens a second of DECODED greedy tokens. The first comes from the prefill's logits, so one
    more is drawn and only what lies between is timed: each is one step of the model."""
    times = []
    for _ in context.sample(sampling=GREEDY, grammar=None, max_tokens=DECODED + 1):
        times.append(time.perf_counter())
    return (len(times) - 1) / (times[-1] - times[0])


def _milliseconds(operation: Callable[[], object]) -> float:
    """The slowest of a few runs: the bar is a promise, not a mean."""
    slowest = 0.0
    for _ in range(REPEATS):
        began = time.perf_counter()
        operation()
        slowest = max(slowest, time.perf_counter() - began)
    return slowest * 1000


if __name__ == "__main__":
    rows = measure(Path(sys.argv[1]), [int(length) for length in sys.argv[2:]])
    print(json.dumps([asdict(row) for row in rows]))
