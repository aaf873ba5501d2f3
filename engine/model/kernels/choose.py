"""Decides which kernels a model is run with. In: the kernels there are, a configuration, the file
of verdicts. Out: `Chosen`, with a notice where one was just switched off. A kernel is used where it
was compared with its twin on this machine and gave the same.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, replace
from functools import lru_cache
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.kernels.chosen import Chosen
from ds4_agent.engine.model.kernels.trials import Call, Kernel
from ds4_agent.engine.model.kernels.verdicts import UNSUITED, Verdict, Verdicts
from ds4_agent.engine.model.operations import PURE

__all__ = ["choose", "tried"]

HERE = Path(__file__).resolve().parent


def choose(
    all_kernels: Sequence[Kernel],
    config: ModelConfig,
    dtype: mx.Dtype,
    verdicts: Verdicts,
    *,
    again: bool = False,
) -> Chosen:
    """`PURE` with every kernel in the place of its twin that is not found wanting."""
    operations, found, failed = PURE, [], []
    for kernel in all_kernels:
        verdict, is_new = _verdict(kernel, config, dtype, verdicts, again=again)
        if verdict.is_used:
            operations = replace(operations, **{kernel.name: kernel.run})
        elif is_new:
            failed.append(f"{kernel.name} ({verdict.reason})")
        found.append(verdict)
    return Chosen(operations, tuple(found), _notice(failed))


def _verdict(
    kernel: Kernel, config: ModelConfig, dtype: mx.Dtype, verdicts: Verdicts, *, again: bool
) -> tuple[Verdict, bool]:
    """(the verdict, whether it was found now)."""
    if not kernel.suits(config):
        return Verdict(kernel.name, is_used=False, reason=UNSUITED), False
    key = _key(kernel, config, dtype)
    known = None if again else verdicts.known(key)
    if known is not None:
        return known, False
    if verdicts.begin(key):
        verdict = tried(kernel, config, dtype)
    else:
        reason = "twice the process ended while it was tried"
        verdict = Verdict(kernel.name, is_used=False, reason=reason)
    verdicts.end(key, verdict)
    return verdict, True


def _notice(failed: Sequence[str]) -> str:
    if not failed:
        return ""
    return (
        f"Metal kernels switched off on this machine: {'; '.join(failed)}; MLX's own operations "
        "compute instead, more slowly (ds4-agent doctor --model tells more)"
    )


def tried(kernel: Kernel, config: ModelConfig, dtype: mx.Dtype) -> Verdict:
    """Compile and run the kernel and compare it with its twin, computed on the CPU: what the kernel
    is held to must not come from the GPU it is tried on."""
    try:
        difference = max(_difference(kernel, call) for call in kernel.calls(config, dtype))
    except Exception as error:  # whatever MLX or Metal's compiler raise: the twin is there
        said = " ".join(str(error).split())[:200] or "no details"
        return Verdict(kernel.name, is_used=False, reason=f"{type(error).__name__}: {said}")
    is_used = difference <= kernel.tolerance
    reason = "" if is_used else f"differs by {difference:.1e}, allowed {kernel.tolerance:.1e}"
    return Verdict(kernel.name, is_used, reason, difference)


def _difference(kernel: Kernel, call: Call) -> float:
    """The largest difference of a number from its twin's, of the twin's largest or of 1; infinite
    for another shape and for what is not a number."""
    given = _numbers(kernel, kernel.run, call)
    with mx.stream(mx.cpu):
        expected = _numbers(kernel, kernel.twin, call)
    worst = 0.0
    for own, twin in zip(given, expected, strict=True):
        if own.shape != twin.shape:
            return float("inf")
        apart = np.abs(own - twin).max() / max(np.abs(twin).max(), 1.0)
        worst = max(worst, float(apart) if np.isfinite(apart) else float("inf"))
    return worst


def _numbers(kernel: Kernel, function: object, call: Call) -> list[NDArray[np.float64]]:
    assert callable(function)
    arrays = kernel.arrays(function(*call))
    mx.eval(arrays)
    return [np.array(array.astype(mx.float32)).astype(np.float64) for array in arrays]


def _key(kernel: Kernel, config: ModelConfig, dtype: mx.Dtype) -> str:
    """What a verdict holds for: the kernel, its code, the sizes and the dtype."""
    holds_for = (kernel.tolerance, astuple(config), str(dtype))
    return f"{kernel.name} {hashlib.sha256(repr(holds_for).encode() + _code()).hexdigest()[:24]}"


@lru_cache(maxsize=1)
def _code() -> bytes:
    """Of all kernels, how they are started and what they are tried on."""
    files = sorted(path for path in HERE.iterdir() if path.suffix in (".metal", ".py"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()
