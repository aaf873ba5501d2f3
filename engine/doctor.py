"""What the engine runs on, as facts for `ds4-agent doctor`: the MLX version and device, which BLAS
answers its matrix products and what that yields. Measures for well under a second on a working
machine; loads no model, changes nothing.
"""

import time
from dataclasses import dataclass
from importlib.metadata import version

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
    blas: str
    blas_threads: int | None  # None: the library does not say
    gflops: float  # fp32, of a product of two SIZE x SIZE matrices on that device
    nano_is_bundled: bool

    @property
    def is_slow(self) -> bool:
        """True when matrix products run on a reference BLAS."""
        return self.gflops < SLOW


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

    device = mx.default_device()
    return EngineFacts(
        mlx_version=version("mlx"),
        device="cpu" if device.type == mx.cpu else str(mx.device_info().get("device_name", device)),
        blas=found.name,
        blas_threads=found.threads,
        gflops=_gflops(),
        nano_is_bundled=(NANO / "model.safetensors").is_file(),
    )


def _gflops() -> float:
    """The best of three products after a warm-up: billions of fp32 operations a second."""
    import mlx.core as mx

    left = mx.random.normal((SIZE, SIZE))
    right = mx.random.normal((SIZE, SIZE))
    mx.eval(left @ right)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        mx.eval(left @ right)
        best = min(best, time.perf_counter() - began)
    return 2 * SIZE**3 / best / 1e9
