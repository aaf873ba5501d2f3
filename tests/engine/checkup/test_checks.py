"""Each check finds what it is for: ways of computing that differ, kernels that are wrong, bytes and
seconds."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.checkup import parity, speed
from ds4_agent.engine.checkup.findings import Finding, found
from ds4_agent.engine.checkup.kernels import check_kernels, judged
from ds4_agent.engine.checkup.parity import Way, check_parity
from ds4_agent.engine.checkup.traffic import held_and_read
from ds4_agent.engine.errors import Cancelled, EngineError
from ds4_agent.engine.model.kernels.chosen import Chosen
from ds4_agent.engine.model.kernels.verdicts import UNSUITED, Verdict
from ds4_agent.engine.model.operations import PURE
from ds4_agent.engine.open import NANO
from ds4_agent.engine.weights.checkpoint import load_model

WHOLE = np.random.default_rng(0).standard_normal((20, 50)).astype(np.float32)


@pytest.mark.nano
def test_nano_is_the_same_whatever_way_it_is_computed():
    finding = check_parity(NANO)

    assert finding.verdict == "passed", finding.said
    assert all(way["same"] > 0.9 for way in finding.figures.values())
    assert len(finding.figures) >= 2


@pytest.mark.parametrize(
    ("logits", "largest", "verdict"),
    [
        (WHOLE + 1e-5, 1e-4, "passed"),
        (WHOLE + 0.1, 1e-4, "failed"),
        (WHOLE * np.nan, 1e-4, "failed"),
        (WHOLE + 0.1, None, "passed"),  # bf16: the order counts
        (-WHOLE, None, "failed"),
    ],
)
def test_ways_that_differ_are_a_failure(logits, largest, verdict):
    finding = parity._judged(
        WHOLE, [Way("right", WHOLE, 0.0), Way("this", logits, largest)], "here"
    )

    assert finding.verdict == verdict
    assert "this" in finding.said


def test_a_wrong_operation_is_found(tiny, monkeypatch):
    """One that only MLX's way goes through."""
    right = mx.fast.rms_norm
    assert check_parity(tiny).verdict == "passed"
    monkeypatch.setattr(mx.fast, "rms_norm", lambda x, *rest: 1.01 * right(x, *rest))

    finding = check_parity(tiny)

    assert finding.verdict == "failed"
    assert (
        finding.figures["in chunks"]["apart"] < 1e-4 < finding.figures["MLX beside numpy"]["apart"]
    )


@pytest.mark.nano
def test_the_way_of_a_gpu_is_held_to_the_cpu(monkeypatch):
    """Its operations exist on a CPU too, so here they are run there, in fp32 and in bf16."""
    monkeypatch.setattr(parity, "on_cpu", lambda: False)

    finding = check_parity(NANO)

    assert finding.verdict == "passed", finding.said
    assert finding.said.startswith("on the GPU beside the CPU")
    assert finding.figures["in fp32"]["apart"] < finding.figures["in bf16"]["apart"]


def test_the_bandwidth_of_a_gpu_is_measured_in_mlx():
    assert speed._gpu_bandwidth(4 << 20) > 1e7


def verdict(name="top_rows", used=True, reason="", difference=0.0):
    return Verdict(name, used, reason, difference)


def test_kernels_are_told_one_by_one():
    wrong = verdict("write_streams", False, "differs by 5.0e-03, allowed 1.0e-03", 5e-3)
    unsuited = verdict("attend_pieces", False, UNSUITED, None)

    fine = judged(Chosen(PURE, (verdict(difference=1e-6), unsuited)))
    bad = judged(Chosen(PURE, (verdict(), wrong)))

    assert (fine.verdict, bad.verdict) == ("passed", "failed")
    assert "1 of 2 are used, 1.0e-06 from their twins at most" in fine.said
    assert "write_streams is not: differs by 5.0e-03" in bad.said
    assert bad.figures["write_streams"]["difference"] == 5e-3


def test_without_metal_there_is_no_kernel_to_try(tmp_path, config):
    if mx.metal.is_available():
        pytest.skip("there is Metal here")

    finding = check_kernels(config, tmp_path / "kernels.json")

    assert finding.verdict == "not made"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def config(tiny):
    return load_model(tiny).config


def test_a_token_reads_its_experts_and_one_row_of_the_embedding(tiny):
    model = load_model(tiny)
    parameters, config = model.parameters, model.config

    held, read = held_and_read(parameters, config)

    experts = sum(
        layer.experts.gate_up.nbytes + layer.experts.down.nbytes for layer in parameters.layers
    )
    tables = [layer.experts.table for layer in parameters.layers if layer.experts.table is not None]
    rows = [parameters.embed, *tables]
    idle = experts * (1 - config.num_experts_per_tok / config.n_routed_experts)
    idle += sum(row.nbytes * (1 - 1 / row.shape[0]) for row in rows)
    assert read == pytest.approx(held - idle)
    assert experts < held


def test_speed_is_measured_and_judges_nothing(tiny, monkeypatch):
    monkeypatch.setattr(speed, "CPU_BYTES", 16 << 20)

    finding = speed.check_speed(load_model(tiny))

    figures = finding.figures
    assert finding.verdict == "measured"
    reached = figures["decode_tokens_per_second"] * figures["weight_bytes_per_token"]
    share = reached / figures["bandwidth_bytes_per_second"]
    assert figures["share_of_bandwidth"] == pytest.approx(share, abs=1e-3)
    assert figures["prefill_tokens_per_second"] > figures["decode_tokens_per_second"] > 1


def test_speed_stops_when_it_is_told_to(tiny):
    def stop():
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        speed.check_speed(load_model(tiny), stop)


def test_an_error_in_one_check_is_its_failure():
    def fails():
        raise EngineError("the logits are not all numbers")

    assert found("recall", fails) == Finding("recall", "failed", "the logits are not all numbers")
