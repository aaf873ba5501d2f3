"""The logistic function of any number, in either library, against float64."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model.sigmoid import sigmoid


@pytest.mark.parametrize("kind", [np.array, mx.array])
def test_sigmoid_of_any_number(kind):
    x = np.linspace(-30, 30, 4096, dtype=np.float32)
    x[:6] = [-3e38, -1000, -88, 88, 1000, 3e38]
    expected = 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -700, 700)))

    found = np.array(sigmoid(kind(x)))

    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-30)
