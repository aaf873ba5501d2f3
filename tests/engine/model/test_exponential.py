"""exp and sigmoid of large arrays, which take their own way on an x86 CPU, against float64."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model.exponential import LARGE, exp, sigmoid

SIZES = [LARGE - 1, 4 * LARGE]


@pytest.mark.parametrize("size", SIZES)
def test_exp_near_zero_is_exact_to_a_millionth(size):
    x = np.linspace(-20, 20, size, dtype=np.float32)
    np.testing.assert_allclose(np.array(exp(mx.array(x))), np.exp(x.astype(np.float64)), rtol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_exp_far_out_is_right(size):
    x = np.linspace(-86.9, 87.9, size, dtype=np.float32)
    np.testing.assert_allclose(np.array(exp(mx.array(x))), np.exp(x.astype(np.float64)), rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_sigmoid_of_any_number(size):
    x = np.linspace(-30, 30, size, dtype=np.float32)
    x[:6] = [-3e38, -1000, -88, 88, 1000, 3e38]
    expected = 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -700, 700)))
    found = np.array(sigmoid(mx.array(x)))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-30)
