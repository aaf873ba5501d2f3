"""One line about the machine a table was measured on: processor, cores, system, versions, BLAS."""

import platform
from importlib.metadata import PackageNotFoundError, version

from ds4_agent.engine.blas import usable_cores
from ds4_agent.engine.doctor import examine

__all__ = ["machine"]


def machine() -> str:
    """For example: AMD EPYC 7B13, 2 cores, Linux x86_64; Python 3.11.7, mlx 0.32.4 on cpu …"""
    facts = examine()
    versions = [f"Python {platform.python_version()}", f"mlx {facts.mlx_version} on {facts.device}"]
    for package in ("torch", "transformers"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return (
        f"{facts.processor}, {usable_cores()} cores, {platform.system()} {platform.machine()}; "
        f"{', '.join(versions)}; BLAS of numpy {facts.numpy_blas}, "
        f"{facts.numpy_gflops:.0f} GFLOP/s at 1024^3, of mlx {facts.blas}, {facts.gflops:.0f}"
    )
