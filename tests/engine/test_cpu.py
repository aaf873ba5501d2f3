"""The settings of the process for a model on a CPU, looked at from a process of their own."""

import subprocess
import sys

import pytest

THREADS = """
import ctypes, pathlib, numpy as np
from ds4_agent.engine.blas import preload
from ds4_agent.engine.cpu import prepare
preload(); prepare()
libs = pathlib.Path(np.__file__).resolve().parent.with_name("numpy.libs")
found = [ctypes.CDLL(None), *(ctypes.CDLL(str(p)) for p in libs.glob("*openblas*"))]
names = ["openblas_get_num_threads", "scipy_openblas_get_num_threads64_"]
print(max((getattr(l, n)() for l in found for n in names if hasattr(l, n)), default=1))
"""
MEMORY = """
import resource, numpy as np
from ds4_agent.engine.cpu import prepare
prepare()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(500_000, np.float32)
before = faults()
for _ in range(200):
    np.ones(500_000, np.float32)
print(faults() - before)
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc and OpenBLAS")


def output(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@on_linux
def test_every_blas_computes_on_the_thread_that_asks():
    assert output(THREADS) == "1"


@on_linux
def test_freed_memory_is_used_again_and_not_asked_of_the_kernel():
    assert int(output(MEMORY)) < 200  # 490 pages for each array otherwise


@on_linux
def test_a_number_of_threads_that_the_user_set_is_kept():
    assert output(THREADS, OPENBLAS_NUM_THREADS="2") == "2"
