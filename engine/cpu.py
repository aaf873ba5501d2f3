"""Settings of this process that make a model on a CPU several times faster: memory kept between
operations, and one BLAS thread for each thread that computes. Changes nothing outside the process
and nothing on a GPU.
"""

import ctypes
import os
from pathlib import Path

import numpy as np

__all__ = ["prepare"]

# What glibc calls the parameters of mallopt, and what we ask for. Arrays of a few megabytes are
# made and freed thousands of times a second; by default each is fresh memory from the kernel, and
# its page faults take longer than computing it.
MALLOPT = (
    (-3, 32 << 20),  # M_MMAP_THRESHOLD: the most that glibc allows
    (-1, 256 << 20),  # M_TRIM_THRESHOLD: freed memory kept
    (-2, 64 << 20),  # M_TOP_PAD
    (-8, 1),  # M_ARENA_MAX: what one thread frees another gets
)
# How OpenBLAS is told its number of threads, by itself and as numpy's wheels rename it.
SET_THREADS = (
    "openblas_set_num_threads",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
)


def prepare() -> None:
    """Ask for all of it. What the user set in the environment is kept."""
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        _use_one_thread()
    process = ctypes.CDLL(None)
    if hasattr(process, "gnu_get_libc_version") and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        for parameter, value in MALLOPT:
            process.mallopt(parameter, value)


def _use_one_thread() -> None:
    """Every OpenBLAS of this process, numpy's and MLX's, computes on the thread that asks for it.

    The model divides a chunk among the cores itself, each part on a thread. Threads inside the
    products of several parts would wait for each other, spinning.
    """
    bundled = Path(np.__file__).resolve().parent.with_name("numpy.libs").glob("*openblas*")
    for library in (ctypes.CDLL(None), *(ctypes.CDLL(str(path)) for path in bundled)):
        for name in SET_THREADS:
            if hasattr(library, name):
                getattr(library, name)(1)
