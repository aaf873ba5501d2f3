"""Each Metal kernel's body, run in C++, against the pure operation it stands in for. What Metal's
own compiler says of them cannot be tested here; everything else can."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model.kernels.trials import kernels

NAMES = [kernel.name for kernel in kernels(lambda *_, **__: [])]

# Scores beyond 100, of which a rounding is a millionth, make weights that differ by as much.
TOLERANCES = {"attend_pieces": 1e-4}


def kernel_named(launch, name):
    return next(kernel for kernel in kernels(launch) if kernel.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_gives_what_its_twin_gives(emulator, config, dtype, name):
    kernel = kernel_named(emulator, name)
    tolerance = TOLERANCES.get(name, 2e-6) if dtype == mx.float32 else kernel.tolerance

    for call in kernel.calls(config, dtype):
        twin, own = kernel.arrays(kernel.twin(*call)), kernel.arrays(kernel.run(*call))

        assert [(x.shape, x.dtype) for x in own] == [(x.shape, x.dtype) for x in twin]
        for expected, given in zip(twin, own, strict=True):
            expected, given = (np.array(x.astype(mx.float32)) for x in (expected, given))
            allowed = tolerance * max(np.abs(expected).max(), 1.0)
            assert np.abs(given - expected).max() <= allowed


@pytest.mark.parametrize("order", [1, 5])
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_gives_the_same_in_any_order_of_its_threads(emulator, config, name, order):
    kernel, other = (kernel_named(launch, name) for launch in (emulator, emulator.ordered(order)))

    for call in kernel.calls(config, mx.float32):
        for first, second in zip(
            kernel.arrays(kernel.run(*call)), kernel.arrays(other.run(*call)), strict=True
        ):
            assert np.array(first).tobytes() == np.array(second).tobytes()
