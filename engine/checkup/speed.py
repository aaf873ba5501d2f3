"""How fast a model is here, and how near decoding comes to what memory allows: bytes of weights a
token reads, times tokens a second, over the bandwidth that plain sums and copies reach. In: a
model. Out: a `Finding` that judges nothing. Runs on the engine thread.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np

from ds4_agent.engine.blas import usable_cores
from ds4_agent.engine.checkup.findings import Finding
from ds4_agent.engine.checkup.traffic import held_and_read
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.prefill import prefill
from ds4_agent.engine.model.state import State, evaluate
from ds4_agent.engine.model.tiles import on_cpu

__all__ = ["CHECK", "bandwidth", "check_speed"]

CHECK = "speed"
PREFILLED, DECODED, WARM = 1024, 48, 64  # tokens
REPEATS = 4  # of a sum and a copy; the fastest counts
CPU_BYTES = 128 << 20  # more than caches hold
GPU_BYTES = 1 << 30
SUMS = 8  # in one go, so that starting them does not count


def check_speed(model: Model, stop: Callable[[], None] = lambda: None) -> Finding:
    """`stop` is called now and then and may raise."""
    ids = np.random.default_rng(0).integers(16, model.config.vocab_size, PREFILLED).tolist()
    length = min(PREFILLED, model.config.max_position_embeddings - DECODED - 2)
    _prefilled(model, ids[:WARM], stop)  # caches, threads, kernels
    began = time.perf_counter()
    token, state = _prefilled(model, ids[:length], stop)
    prefill_rate = length / (time.perf_counter() - began)
    decode_rate = _decode_rate(model, token, state, stop)
    held, read = held_and_read(model.parameters, model.config)
    limit = bandwidth()
    share = read * decode_rate / limit
    return Finding(
        CHECK,
        "measured",
        f"prefill {prefill_rate:,.0f} tokens/s ({length:,} tokens), decode {decode_rate:,.1f} "
        f"tokens/s; a token reads {read / 1e9:.3g} GB of weights, so that decode reaches "
        f"{share:.0%} of the {limit / 1e9:,.0f} GB/s that memory gives here",
        {
            "prefill_tokens": length,
            "prefill_tokens_per_second": round(prefill_rate, 2),
            "decode_tokens_per_second": round(decode_rate, 3),
            "weight_bytes": held,
            "weight_bytes_per_token": round(read),
            "bandwidth_bytes_per_second": round(limit),
            "share_of_bandwidth": round(share, 4),
        },
    )


def _prefilled(model: Model, ids: Sequence[int], stop: Callable[[], None]) -> tuple[int, State]:
    """(the most likely next id, the state), computed."""

    def go_on(done: int, state: State) -> bool:
        stop()
        return True

    logits, state = prefill(model, ids, model.init_state(), on_chunk=go_on)
    return int(np.array(logits).argmax()), state


def _decode_rate(model: Model, token: int, state: State, stop: Callable[[], None]) -> float:
    """Tokens a second, greedy; the first two warm up."""
    began = time.perf_counter()
    for count in range(DECODED + 2):
        if count == 2:
            began = time.perf_counter()
        logits, state = model([token], state)
        evaluate(logits, state)
        token = int(np.array(logits).argmax())
        stop()
    return DECODED / (time.perf_counter() - began)


def bandwidth() -> float:
    """Bytes a second that the device's memory gives: the better of reading all of an array, and of
    reading one while another is written."""
    if on_cpu():
        return _cpu_bandwidth(CPU_BYTES)
    return _gpu_bandwidth(GPU_BYTES)


def _gpu_bandwidth(size: int) -> float:
    source = mx.arange(size // 4, dtype=mx.float32)
    mx.eval(source)
    seconds_sum = _fastest(lambda: mx.eval([mx.sum(source) for _ in range(SUMS)])) / SUMS
    seconds_copy = _fastest(lambda: mx.eval(source + 1.0))
    mx.clear_cache()
    return max(size / seconds_sum, 2 * size / seconds_copy)


def _cpu_bandwidth(size: int) -> float:
    """Every core has its own part."""
    cores = usable_cores()
    parts = [np.ones(size // 4 // cores, np.float32) for _ in range(cores)]
    targets = [np.zeros_like(part) for part in parts]
    with ThreadPoolExecutor(cores) as pool:
        seconds_sum = _fastest(lambda: list(pool.map(np.dot, parts, parts)))
        seconds_copy = _fastest(lambda: list(pool.map(np.copyto, targets, parts)))
    return max(size / seconds_sum, 2 * size / seconds_copy)


def _fastest(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best
