"""What the engine runs on, as facts for `ds4-agent doctor`: the MLX version and device, which BLAS
answers the matrix products of MLX, and of numpy, which computes on a CPU, and what they yield.
Measures for well under a second on a working machine; loads no model, changes nothing.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ds4_agent.engine import blas
from ds4_agent.engine.open import NANO
from ds4_agent.engine.worker import Worker

__all__ = ["EngineFacts", "examine"]

SIZE = 1024  # of the measured product, SIZE x SIZE x SIZE in fp32
SLOW = 20.0  # GFLOP/s; the reference BLAS yields about 5, a tuned one over 50 on any machine


@dataclass(frozen=True)
class EngineFacts:
    """What `doctor` shows of the engine."""

    mlx_version: str
    device: str  # "cpu", or the GPU as MLX names it
    blas: str  # of MLX on the CPU
    blas_threads: int | None  # None: the library does not say
    gflops: float  # fp32, of a product of two SIZE x SIZE matrices in MLX on that device
    numpy_blas: str
    numpy_gflops: float  # the same in numpy
    nano_is_bundled: bool
    processor: str  # as the system names it

    @property
    def is_slow(self) -> bool:
        """True when the model's matrix products run on a reference BLAS."""
        return (self.numpy_gflops if self.device == "cpu" else self.gflops) < SLOW


def examine() -> EngineFacts:
    """Look and measure, on an engine thread of its own. Raises EngineError if MLX fails to load."""
    worker = Worker("ds4-doctor")
    try:
        return worker.call(_examine)
    finally:
        worker.close()


def _examine() -> EngineFacts:
    found = blas.preload()
    import mlx.core as mx
    import numpy as np

    device = mx.default_device()
    ones = np.ones((SIZE, SIZE), np.float32)
    square = mx.ones((SIZE, SIZE))  # mx.random on a thread aborts some exits (MLX 0.32)
    linked = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return EngineFacts(
        mlx_version=version("mlx"),
        device="cpu" if device.type == mx.cpu else str(mx.device_info().get("device_name", device)),
        blas=found.name,
        blas_threads=found.threads,
        gflops=_gflops(lambda: mx.eval(square @ square)),
        numpy_blas=f"{linked.get('name', 'unknown')} {linked.get('version', '')}".strip(),
        numpy_gflops=_gflops(lambda: ones @ ones),
        nano_is_bundled=(NANO / "model.safetensors").is_file(),
        processor=_processor(),
    )


def _gflops(product: Callable[[], object]) -> float:
    """The best of three products after a warm-up: billions of fp32 operations a second."""
    product()
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - began)
    return 2 * SIZE**3 / best / 1e9


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"
