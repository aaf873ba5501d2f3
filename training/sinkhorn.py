"""`sinkhorn(logits)`: V4's doubly stochastic stream mixing as one differentiable torch operation.

In: float32 [count, 16] (4x4 matrices). Out: the same shape. The work is done by sinkhorn.c, or
sinkhorn.cu on a GPU, built on first use into training/runs/; with torch's own operations this would
take longer than all else.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
BUILT = HERE / "runs"
GCC = ("gcc", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC", "-lm")
NVCC = ("nvcc", "-O3", "-arch=native", "-shared", "-Xcompiler", "-fPIC")
# The backward keeps 2 * iterations - 1 < 64 states on its stack.
MOST_ITERATIONS = 32


@functools.cache
def library(source: str, *build: str) -> ctypes.CDLL:
    """The compiled source; built again when it is newer. CalledProcessError when that fails."""
    path, built = HERE / source, (BUILT / source).with_suffix(f".{build[0]}.so")
    if not built.exists() or built.stat().st_mtime < path.stat().st_mtime:
        built.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([build[0], str(path), *build[1:], "-o", str(built)], check=True)
    return ctypes.CDLL(str(built))


def address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def call(name: str, tensors: tuple[Tensor, ...], iterations: int, eps: float) -> None:
    """Run `name` of the library for the tensors' device; the last of `tensors` is written."""
    sizes = (
        ctypes.c_int64(tensors[0].shape[0]),
        ctypes.c_int(iterations),
        ctypes.c_float(eps),
    )
    pointers = [address(tensor) for tensor in tensors]
    if not tensors[0].is_cuda:
        library("sinkhorn.c", *GCC)[f"sinkhorn_{name}"](*pointers, *sizes)
        return
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    error = library("sinkhorn.cu", *NVCC)[f"sinkhorn_cuda_{name}"](*pointers, *sizes, stream)
    if error:
        raise RuntimeError(f"sinkhorn.cu failed with CUDA's error {error}")


def forward(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """[count, 16] float32 -> [count, 16] float32, rows and columns of each 4x4 summing to 1."""
    logits = logits.contiguous()
    out = torch.empty_like(logits)
    call("forward", (logits, out), iterations, eps)
    return out


def gradient(logits: Tensor, grad: Tensor, iterations: int, eps: float) -> Tensor:
    """Gradient of `forward` at `logits`, [count, 16] float32."""
    logits, grad = logits.contiguous(), grad.contiguous()
    out = torch.empty_like(logits)
    call("backward", (logits, grad, out), iterations, eps)
    return out


def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, iterations, eps = inputs
    if iterations > MOST_ITERATIONS:
        raise ValueError(f"at most {MOST_ITERATIONS} Sinkhorn iterations can be trained")
    ctx.save_for_backward(logits)
    ctx.iterations, ctx.eps = iterations, eps


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (logits,) = ctx.saved_tensors
    return sinkhorn_backward(logits, grad, ctx.iterations, ctx.eps), None, None


# As operators, so that a compiled layer calls them as they are.
sinkhorn = torch.library.custom_op("nano::sinkhorn", forward, mutates_args=())
sinkhorn.register_fake(lambda logits, iterations, eps: torch.empty_like(logits))
sinkhorn_backward = torch.library.custom_op("nano::sinkhorn_backward", gradient, mutates_args=())
sinkhorn_backward.register_fake(lambda logits, grad, iterations, eps: torch.empty_like(logits))
sinkhorn.register_autograd(backward, setup_context=remember)
