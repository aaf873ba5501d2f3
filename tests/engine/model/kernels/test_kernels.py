"""Each Metal kernel's body, run in C++, against the pure operation it stands in for. What Metal's
own compiler says of them cannot be tested here; everything else can."""

import math
import re
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model.kernels import attention, hyper, indexer
from ds4_agent.engine.model.kernels.trials import kernels

NAMES = [kernel.name for kernel in kernels(lambda *_, **__: [])]
SOURCES = (
    hyper.READ, hyper.WRITE, indexer.SCORES, indexer.TOP, indexer.TAKEN, attention.ATTEND,
)  # fmt: skip
# Scores beyond 100, of which a rounding is a millionth, make weights that differ by as much.
TOLERANCES = {"attend_pieces": 1e-4}
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
BARRIERS = [
    (source.name, number) for source in SOURCES for number in range(source.body.count(BARRIER))
]
ORDERS = (0, 1, 5)  # of a group's threads: ascending, descending, mixed


def kernel_named(launch, name):
    return next(kernel for kernel in kernels(launch) if kernel.name == name)


def numbers(x):
    return np.array(x.astype(mx.float32))


def assert_alike(kernel, call, tolerance):
    twin, own = kernel.arrays(kernel.twin(*call)), kernel.arrays(kernel.run(*call))
    assert [(x.shape, x.dtype) for x in own] == [(x.shape, x.dtype) for x in twin]
    for expected, given in zip(map(numbers, twin), map(numbers, own), strict=True):
        assert np.abs(given - expected).max() <= tolerance * max(np.abs(expected).max(), 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_gives_what_its_twin_gives(emulator, config, dtype, name):
    kernel = kernel_named(emulator, name)
    tolerance = TOLERANCES.get(name, 2e-6) if dtype == mx.float32 else kernel.tolerance

    for call in kernel.calls(config, dtype):
        assert_alike(kernel, call, tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_at_the_published_sizes(emulator, published, name):
    kernel = kernel_named(emulator, name)

    assert_alike(kernel, next(kernel.calls(published, mx.bfloat16)), kernel.tolerance)


@pytest.mark.parametrize("order", ORDERS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_gives_the_same_in_any_order_of_its_threads(emulator, config, name, order):
    first, second = (kernel_named(launch, name) for launch in (emulator, emulator.ordered(order)))

    for call in first.calls(config, mx.float32):
        assert bytes_of(first, call) == bytes_of(second, call)


def bytes_of(kernel, call):
    return [np.array(x).tobytes() for x in kernel.arrays(kernel.run(*call))]


@pytest.mark.parametrize(("name", "number"), BARRIERS)
def test_no_barrier_of_a_kernel_is_idle(emulator, config, name, number):
    """Without it, some order of the threads gives something else: the orders above do tell."""
    right = kernel_named(emulator, "attend_pieces" if name == "attend_piece" else name)

    def differs(call, order):
        def launch(source, *arguments, **options):
            lacking = replace(source, body=without_barrier(source.body, number))
            return emulator.ordered(order)(lacking, *arguments, **options)

        try:
            given = bytes_of(kernel_named(launch, right.name), call)
        except RuntimeError:  # an index out of bounds
            return True
        return given != bytes_of(right, call)

    calls = right.calls(config, mx.float32)
    assert any(differs(call, order) for call in calls for order in ORDERS)


def without_barrier(body, number):
    parts = body.split(BARRIER)
    return BARRIER.join(parts[: number + 1]) + BARRIER.join(parts[number + 1 :])


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_threadgroup_memory_is_within_metals(source):
    sizes = {"N": 4, "THREADS": 1024, "WIDTH": 512, "TOP": 512}

    def value(text):
        return int(eval(text.replace("/", "//"), {}, sizes))

    for name, text in re.findall(r"constexpr uint (\w+) = ([^;]+);", source.body):
        sizes[name] = value(text)
    used = 0
    for dimensions in re.findall(r"threadgroup \w+ \w+((?:\[[^]]+\])+);", source.body):
        used += 4 * math.prod(map(value, re.findall(r"\[([^]]+)\]", dimensions)))

    assert used <= 32768
    assert (used > 0) == (BARRIER in source.body)
