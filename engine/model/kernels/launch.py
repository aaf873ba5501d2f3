"""Starts a Metal kernel through MLX. In: a `Source` (the body of a `.metal` file beside this one,
and the names it uses) and arrays. Out: its results, lazy. What compiles and runs it is a `Launch`,
so that the tests can run the very same bodies where there is no Metal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

__all__ = ["Launch", "Result", "Source", "metal_launch", "source"]

# MLX hands inputs of fewer elements over in Metal's `constant` address space and generates another
# signature for it. Under one name both would be compiled anew at each change, so the name tells.
SMALL = 8


@dataclass(frozen=True)
class Source:
    """A kernel as Metal sees it. The body may ask for `NAME_shape` of any input."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    body: str


@dataclass(frozen=True)
class Result:
    """What an output is made for."""

    shape: tuple[int, ...]
    dtype: mx.Dtype


class Launch(Protocol):
    def __call__(
        self,
        source: Source,
        inputs: Sequence[mx.array],
        results: Sequence[Result],
        *,
        template: Mapping[str, int | bool | mx.Dtype],
        groups: tuple[int, int],
        threads: int,
    ) -> list[mx.array]:
        """Run `groups` [x, y] threadgroups of `threads` threads. `template` names the constants and
        types of the body; THREADS is one of them."""
        ...


@lru_cache(maxsize=64)
def source(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Source:
    """The kernel of `NAME.metal`."""
    path = Path(__file__).with_name(f"{name}.metal")
    return Source(name, inputs, outputs, path.read_text(encoding="utf-8"))


def metal_launch(
    source: Source,
    inputs: Sequence[mx.array],
    results: Sequence[Result],
    *,
    template: Mapping[str, int | bool | mx.Dtype],
    groups: tuple[int, int],
    threads: int,
) -> list[mx.array]:
    """The `Launch` of a Mac. Compiles at the first use of a name, when the result is evaluated."""
    kinds = "".join(f"_{_short(x.dtype)}{'c' if x.size < SMALL else ''}" for x in inputs)
    kernel = _kernel(source, kinds)
    outputs: list[mx.array] = kernel(
        inputs=list(inputs),
        template=[("THREADS", threads), *template.items()],
        grid=(groups[0] * threads, groups[1], 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[result.shape for result in results],
        output_dtypes=[result.dtype for result in results],
    )
    return outputs


@lru_cache(maxsize=256)
def _kernel(source: Source, kinds: str) -> Any:
    return mx.fast.metal_kernel(
        name=f"ds4_{source.name}{kinds}",
        input_names=list(source.inputs),
        output_names=list(source.outputs),
        source=source.body,
    )


def _short(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]
