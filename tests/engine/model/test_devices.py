"""What runs on a GPU and what runs on a CPU are one model. The operations a GPU sees exist on the
CPU too, so here they are run there, and both are held to the golden logits."""

import itertools

import numpy as np
import pytest

from ds4_agent.engine.model import experts, model, parts, prefill, tiles
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.state import evaluate

TOLERANCE = 2e-5


@pytest.fixture
def as_on_gpu(monkeypatch):
    """`as_on_gpu(model)`: the same weights, computed the way a GPU would."""

    def convert(cpu_model):
        for module in (experts, model, prefill, tiles):
            monkeypatch.setattr(module, "on_cpu", lambda: False)
        return Model(cpu_model.config, cpu_model._parameters)

    return convert


def assert_golden(golden, logits, start=0):
    assert np.abs(logits - golden.logits[start:]).max() <= TOLERANCE


@pytest.mark.parametrize("size", [7, 129, 450])
def test_the_operations_of_a_gpu(golden, run, as_on_gpu, size):
    logits, _ = run(as_on_gpu(golden.model)).pieces(golden.prompt, itertools.repeat(size))

    assert_golden(golden, logits)


def test_the_operations_of_a_gpu_token_by_token(mixed, run, as_on_gpu):
    sizes = [410, *itertools.repeat(1, len(mixed.prompt) - 410)]

    logits, _ = run(as_on_gpu(mixed.model)).pieces(mixed.prompt, sizes)

    assert_golden(mixed, logits)


def test_a_cpu_without_numpy(mixed, run):
    plain = Model(mixed.model.config, mixed.model._parameters, in_numpy=False)

    logits, _ = run(plain).pieces(mixed.prompt, [380, *itertools.repeat(5, 14)])

    assert_golden(mixed, logits)


def test_a_state_goes_from_one_way_to_the_other(mixed, run):
    """Begun in MLX, continued in numpy."""
    plain = Model(mixed.model.config, mixed.model._parameters, in_numpy=False)
    first, between = run(plain).pieces(mixed.prompt[:203], [150, 53])

    rest, state = run(mixed.model).pieces(mixed.prompt[203:], [1, 2, 44, 200], between)

    assert_golden(mixed, np.concatenate([first, rest]))
    assert all(isinstance(leaf, np.ndarray) for leaf in state.leaves())


def test_a_step_keeps_the_blocks_it_does_not_change(mixed, run):
    _, before = run(mixed.model).pieces(mixed.prompt, [450])

    _, after = run(mixed.model).pieces([5], [1], before)

    kept = {id(leaf) for leaf in before.leaves()}
    for layer in after.layers:
        if layer.rows is not None:
            assert all(id(block) in kept for block in (*layer.rows.full, *layer.rows.growing))


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_any_number_of_cores(mixed, run, cores, monkeypatch):
    monkeypatch.setattr(parts, "usable_cores", lambda: cores)

    logits, _ = run(mixed.model).pieces(mixed.prompt, [300, 150])

    assert len(list(parts.part_spans(300))) == min(cores, 300 // parts.PART_TOKENS)
    assert_golden(mixed, logits)


def test_an_error_in_one_part_stops_all():
    def work(start, stop, before, behind):
        layers = [before(layer) for layer in range(2)]
        if start:
            raise MemoryError("of the second part")
        for layer, state in enumerate(layers):
            behind(layer, state)

    with pytest.raises(MemoryError, match="second part"):
        parts.run_parts([(0, 8), (8, 16), (16, 24)], ["first", "second"], work)


@pytest.mark.parametrize("tokens", [1, 40, 200, 449])
def test_a_call_gives_the_last_logits_and_the_whole_state(golden, run, tokens):
    """A call computes the last layer for one token only; the state must not miss the others."""
    _, state = run(golden.model).pieces(golden.prompt[:-tokens], [450 - tokens])

    logits, after = golden.model(golden.prompt[-tokens:], state)
    evaluate(logits, after)
    following, _ = run(golden.model).pieces(golden.continuation, [1, 2, 21], after)
    reference, _ = run(golden.model).pieces(golden.prompt + golden.continuation, [474])

    assert_golden(golden, np.array(logits)[None], 449)
    assert np.abs(following - reference[450:]).max() <= TOLERANCE
