"""Puts a fast BLAS under MLX on a Linux CPU. The MLX wheel for Linux carries the reference BLAS,
which multiplies matrices some thirty times slower than OpenBLAS; a library loaded with RTLD_GLOBAL
before `import mlx.core` answers its `cblas_*` calls instead. Loads nothing elsewhere, installs
nothing, and says which library it found.
"""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CANDIDATES", "Blas", "preload", "usable_cores"]

# The first that loads and has what MLX calls. Threaded builds first; the 32-bit-integer interface
# only, because that is the one MLX was compiled against.
CANDIDATES = (
    "libopenblasp.so.0",  # Fedora's threaded OpenBLAS
    "libopenblas.so.0",  # Debian, Ubuntu, Arch
    "libblis.so.4",
    "libblis-mt.so.4",
    "libmkl_rt.so.2",
    "libflexiblas.so.3",
)
NEEDED = ("cblas_sgemm", "cblas_dgemm", "sgetrf_")


@dataclass(frozen=True)
class Blas:
    """What answers MLX's matrix products on the CPU. `threads` None: the library does not say."""

    name: str
    threads: int | None = None


def preload(platform: str = sys.platform, candidates: tuple[str, ...] = CANDIDATES) -> Blas:
    """Load the first of `candidates` that is installed, so that MLX, imported later, uses it.

    Must run before `import mlx.core`: symbols already bound stay bound. A second call finds the
    same library again and changes nothing.
    """
    if platform == "darwin":
        return Blas("Accelerate")
    if platform != "linux":
        return Blas("of MLX")
    for name in candidates:
        library = _load(name)
        if library is not None:
            return Blas(name, _limit_threads(library))
    return Blas("reference BLAS of the MLX wheel (slow; install libopenblas0)")


def _load(name: str) -> ctypes.CDLL | None:
    """The library if it is installed and exports what MLX calls, else None.

    Looked at locally first: a library without these symbols must not enter the global scope.
    """
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    if not all(hasattr(library, symbol) for symbol in NEEDED):
        return None
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def _limit_threads(library: ctypes.CDLL) -> int | None:
    """Never more OpenBLAS threads than this process may run at once; returns their number.

    MLX runs a CPU stream on one thread and calls BLAS from there, so BLAS may have every core. But
    OpenBLAS counts the processors of the machine, not the share a container was given, and its
    waiting threads spin: with 64 threads on 2 cores everything stands still. What the user set in
    OPENBLAS_NUM_THREADS is kept.
    """
    if not hasattr(library, "openblas_get_num_threads"):
        return None
    threads = int(library.openblas_get_num_threads())
    usable = usable_cores()
    if threads > usable and "OPENBLAS_NUM_THREADS" not in os.environ:
        library.openblas_set_num_threads(usable)
        return usable
    return threads


def usable_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores this process may use at once: its affinity, and its cgroup's quota if any."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = affine or 1
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, round(int(quota) / int(period))))
