"""`sinkhorn(logits)`: V4's doubly stochastic stream mixing as one differentiable torch operation.

In: float32 [count, 16] (4x4 matrices). Out: the same shape. The work is done by sinkhorn.c, built
on first use into training/runs/; with torch's own operations this would take longer than all else.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("sinkhorn.c")
LIBRARY = Path(__file__).parent / "runs" / "sinkhorn.so"
BUILD = ("gcc", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC")
# The backward of sinkhorn.c keeps 2 * iterations - 1 <= 64 states on its stack.
MOST_ITERATIONS = 32


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled sinkhorn.c; rebuilt when the source is newer. CalledProcessError without gcc."""
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < SOURCE.stat().st_mtime:
        LIBRARY.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*BUILD, "-o", str(LIBRARY), str(SOURCE), "-lm"], check=True)
    loaded = ctypes.CDLL(str(LIBRARY))
    loaded.sinkhorn_forward.restype = None
    loaded.sinkhorn_backward.restype = None
    return loaded


def address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def forward(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """[count, 16] float32 -> [count, 16] float32, rows and columns of each 4x4 summing to 1."""
    logits = logits.contiguous()
    out = torch.empty_like(logits)
    count = ctypes.c_int64(logits.shape[0])
    library().sinkhorn_forward(
        address(logits), address(out), count, ctypes.c_int(iterations), ctypes.c_float(eps)
    )
    return out


def gradient(logits: Tensor, grad: Tensor, iterations: int, eps: float) -> Tensor:
    """Gradient of `forward` at `logits`, [count, 16] float32."""
    logits, grad = logits.contiguous(), grad.contiguous()
    out = torch.empty_like(logits)
    count = ctypes.c_int64(logits.shape[0])
    library().sinkhorn_backward(
        address(logits),
        address(grad),
        address(out),
        count,
        ctypes.c_int(iterations),
        ctypes.c_float(eps),
    )
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
