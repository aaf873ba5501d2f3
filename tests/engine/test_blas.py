"""Preloading a BLAS: finds what is installed, says what it found, never oversubscribes."""

import ctypes.util
import subprocess
import sys

import pytest

from ds4_agent.engine.blas import CANDIDATES, preload, usable_cores

installed = [name for name in CANDIDATES if ctypes.util.find_library(name[3:].split(".so")[0])]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="MLX on macOS has Accelerate")


def test_macos_needs_none():
    assert preload(platform="darwin").name == "Accelerate"


def test_without_one_it_says_that_products_will_be_slow():
    found = preload(platform="linux", candidates=("libnosuchblas.so.9",))

    assert "reference BLAS" in found.name
    assert "install libopenblas0" in found.name


@on_linux
def test_a_library_without_blas_in_it_is_passed_over():
    found = preload(platform="linux", candidates=("libm.so.6",))

    assert "reference BLAS" in found.name


@on_linux
@pytest.mark.skipif(not installed, reason="no BLAS is installed here")
def test_an_installed_one_answers_the_products_of_mlx():
    code = (
        "from ds4_agent.engine.blas import preload\n"
        "found = preload()\n"
        "import mlx.core as mx\n"
        "mx.eval(mx.ones((256, 256)) @ mx.ones((256, 256)))\n"
        "print(found.name)\n"
    )
    # The dynamic linker itself says which library it bound the name to.
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"LD_DEBUG": "bindings", "PATH": "/usr/bin:/bin"},
    )

    assert done.stdout.strip() in CANDIDATES
    bound = [
        line for line in done.stderr.splitlines() if "libmlx.so" in line and "cblas_sgemm'" in line
    ]
    stem = done.stdout.strip().split(".so")[0]
    assert bound
    assert all(stem in line.split(" to ")[1] for line in bound)


@pytest.mark.parametrize(
    ("text", "cores"),
    [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None), ("odd\n", None)],
)
def test_a_container_quota_limits_the_threads(tmp_path, text, cores):
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    without = usable_cores(tmp_path / "missing")

    assert usable_cores(quota) == (cores or without)
