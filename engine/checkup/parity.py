"""The bundled nano model computed in several ways on this machine: they have to agree. In: nano's
directory. Out: a `Finding`. On a GPU: there against the CPU, and as it is run, in bf16. On a CPU:
in chunks and token by token against the whole, in MLX against numpy. Runs on the engine thread.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.checkup.findings import Finding, Verdict
from ds4_agent.engine.errors import EngineError
from ds4_agent.engine.model.kernels.machine import choose_for_machine
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.state import evaluate
from ds4_agent.engine.model.tiles import on_cpu
from ds4_agent.engine.weights.checkpoint import load_model, read_config

__all__ = ["CHECK", "check_parity"]

CHECK = "nano parity"
TOKENS = 320  # more than nano's window: compressed rows, of all kinds, are attended to
SINGLE = 16  # of them, the last, one after the other
# Of the largest logit. Roundings of a CPU come to about 2e-6, those of a GPU that multiplies fp32
# with eleven bits (TF32), as some do unasked, to 1e-3 and more; a wrong operation to a large part
# of 1.
CPU_LARGEST, GPU_LARGEST = 1e-4, 1e-2
# In bf16 two ids that are about as likely change places now and then.
LEAST_SAME = 0.9

Logits = NDArray[np.float32]  # [tokens, vocab]


@dataclass(frozen=True)
class Way:
    """One way nano was computed. `largest`: how far its logits may be apart, of the largest; None:
    the most likely id has to be the same for LEAST_SAME of the tokens."""

    name: str
    logits: Logits
    largest: float | None


def check_parity(nano: Path, stop: Callable[[], None] = lambda: None) -> Finding:
    """`stop` is called now and then and may raise. Raises EngineError."""
    config = read_config(nano)
    ids = np.random.default_rng(0).integers(16, config.vocab_size, TOKENS).tolist()
    with _on_the_cpu():
        host = load_model(nano, dtype=mx.float32)
        whole = _logits(host, ids, [TOKENS])
    if not np.isfinite(whole).all():
        raise EngineError("nano's logits are not all numbers; install ds4-agent again")
    stop()
    if on_cpu():
        pieces = _logits(host, ids, [128, 100, 7, 17])
        steps = _logits(host, ids, [TOKENS - SINGLE, 1])
        stop()
        in_mlx = _logits(Model(config, host.parameters, in_numpy=False), ids, [TOKENS])
        ways = [
            Way("in chunks", pieces, CPU_LARGEST),
            Way("token by token", steps, CPU_LARGEST),
            Way("MLX beside numpy", in_mlx, CPU_LARGEST),
        ]
        return _judged(whole, ways, "on the CPU")
    ways = []
    for name, dtype, largest in (
        ("in fp32", mx.float32, GPU_LARGEST),
        ("in bf16", mx.bfloat16, None),
    ):
        operations = choose_for_machine(config, dtype, None).operations
        model = load_model(nano, dtype=dtype, operations=operations)
        ways.append(Way(name, _logits(model, ids, [TOKENS - SINGLE, 1]), largest))
        stop()
    return _judged(whole, ways, "on the GPU beside the CPU")


def _judged(whole: Logits, ways: Sequence[Way], place: str) -> Finding:
    figures: dict[str, dict[str, float | None]] = {}
    parts, is_right = [], True
    for way in ways:
        apart = float(np.abs(way.logits - whole).max() / np.abs(whole).max())
        same = float((way.logits.argmax(axis=-1) == whole.argmax(axis=-1)).mean())
        if way.largest is None:
            is_right &= same >= LEAST_SAME
            parts.append(
                f"{way.name} {same:.1%} have the same most likely next, at least "
                f"{LEAST_SAME:.0%} should"
            )
        else:
            is_right &= apart <= way.largest  # not so where it is no number
            parts.append(
                f"{way.name} {apart:.1e} of the largest logit apart, {way.largest:g} may be"
            )
        known = apart if np.isfinite(apart) else None
        figures[way.name] = {"apart": known, "same": same}
    verdict: Verdict = "passed" if is_right else "failed"
    return Finding(CHECK, verdict, f"{place}, {TOKENS} tokens: {'; '.join(parts)}", figures)


def _logits(model: Model, ids: Sequence[int], sizes: Sequence[int]) -> Logits:
    """Of every token, computed in pieces of these sizes, the last one again and again."""
    state, rows, start = model.init_state(), [], 0
    pieces, size = iter(sizes), 0
    while start < len(ids):
        size = next(pieces, size)
        logits, state = model.logits_all(ids[start : start + size], state)
        evaluate(logits, state)
        rows.append(np.array(logits, dtype=np.float32))
        start += size
    return np.concatenate(rows)


@contextmanager
def _on_the_cpu() -> Iterator[None]:
    """The CPU computes meanwhile, as it does where there is no GPU."""
    device = mx.default_device()
    mx.set_default_device(mx.cpu)
    try:
        yield
    finally:
        mx.set_default_device(device)
