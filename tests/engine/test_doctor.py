"""What `ds4-agent doctor` knows of the engine is looked up and measured, never assumed."""

import importlib.metadata

import pytest

from ds4_agent.engine.doctor import EngineFacts, examine


def test_the_facts_are_those_of_this_machine():
    facts = examine()

    assert facts.mlx_version == importlib.metadata.version("mlx")
    assert facts.gflops > 0.1
    assert facts.blas


@pytest.mark.parametrize(("gflops", "slow"), [(5.0, True), (60.0, False)])
def test_a_reference_blas_is_told_by_its_speed(gflops, slow):
    facts = EngineFacts("0.32.4", "cpu", "libopenblas.so.0", 2, gflops, nano_is_bundled=True)

    assert facts.is_slow is slow
