"""What `ds4-agent doctor` knows of the engine is looked up and measured, never assumed."""

import importlib.metadata

import pytest

from ds4_agent.engine.doctor import EngineFacts, examine


def test_the_facts_are_those_of_this_machine():
    facts = examine()

    assert facts.mlx_version == importlib.metadata.version("mlx")
    assert facts.gflops > 0.1
    assert facts.numpy_gflops > 0.1
    assert facts.blas
    assert facts.processor


@pytest.mark.parametrize(
    ("device", "mlx", "numpy", "slow"),
    [
        ("cpu", 60.0, 5.0, True),
        ("cpu", 5.0, 60.0, False),
        ("Apple M4", 5.0, 60.0, True),
        ("Apple M4", 9000.0, 5.0, False),
    ],
)
def test_a_reference_blas_under_the_model_is_told_by_its_speed(device, mlx, numpy, slow):
    facts = EngineFacts(
        "0.32", device, "libopenblas.so.0", 2, mlx, "blas", numpy, True, "a processor"
    )

    assert facts.is_slow is slow
