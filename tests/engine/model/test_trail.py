"""One pass over tokens that may be wrong: the logits of each, and the state after as many as are
right, as if the rest had never been there."""

import numpy as np
import pytest

from ds4_agent.engine.errors import TokenRangeError
from ds4_agent.engine.model import experts, model, prefill, tiles
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.state import evaluate

TOLERANCE = 2e-5
STARTS = (0, 1, 22, 126, 127, 128, 250, 383)  # on both sides of groups and blocks
WRONG = 3  # an id behind those that are right


def bits(array):
    return np.array(array, dtype=np.float32).view(np.uint32)


def state_at(runner, tokens, length):
    model = runner.model
    return runner.pieces(tokens[:length], [length])[1] if length else model.init_state()


def passed(model, tokens, state):
    trail = model.pass_over(tokens, state)
    trail.evaluate()
    return trail


def after(trail, count):
    state = trail.after(count)
    evaluate(trail.logits, state)
    return state


def assert_same_bits(found, expected):
    assert found.position == expected.position
    for one, other in zip(found.leaves(), expected.leaves(), strict=True):
        assert np.array_equal(bits(one), bits(other))


@pytest.mark.parametrize("start", STARTS)
def test_in_numpy_each_token_has_the_bits_it_has_alone(golden, runner, start):
    own = golden.model
    state = alone = state_at(runner, golden.prompt, start)
    tokens = golden.prompt[start : start + 11]

    trail = passed(own, tokens, state)

    for count, token in enumerate(tokens, start=1):
        logits, alone = own([token], alone)
        assert np.array_equal(bits(trail.logits[count - 1]), bits(logits))
        assert_same_bits(trail.after(count), alone)


@pytest.fixture(params=["cpu", "gpu"])
def in_mlx(request, monkeypatch):
    """`in_mlx(model)`: the same weights in MLX, with the operations of a CPU or of a GPU."""

    def convert(own):
        if request.param == "gpu":
            for module in (experts, model, prefill, tiles):
                monkeypatch.setattr(module, "on_cpu", lambda: False)
        return Model(own.config, own._parameters, in_numpy=False)

    return convert


def test_in_mlx_the_logits_are_the_golden_ones(golden, run, in_mlx):
    """Passes of many lengths, with some of their tokens right and the others wrong."""
    own = in_mlx(golden.model)
    runner, prompt = run(own), golden.prompt
    rng = np.random.default_rng(1)
    position, state = 90, state_at(runner, prompt, 90)
    while position < len(prompt):
        right = min(int(rng.integers(1, 10)), len(prompt) - position)
        wrong = [WRONG] * int(rng.integers(0, 5))
        trail = passed(own, prompt[position : position + right] + wrong, state)
        expected = golden.logits[position : position + right]
        assert np.abs(np.array(trail.logits)[:right] - expected).max() <= TOLERANCE
        state, position = after(trail, right), position + right

    last = np.array(trail.logits)[right - 1]
    assert runner.greedy(last, state, len(golden.continuation)) == golden.continuation


@pytest.mark.parametrize("start", STARTS)
def test_in_mlx_a_state_in_the_middle_has_all_its_parts(mixed, run, in_mlx, start):
    own = in_mlx(mixed.model)
    runner, prompt = run(own), mixed.prompt
    state = state_at(runner, prompt, start)
    trail = passed(own, prompt[start : start + 9], state)

    for count in range(1, 10):
        found = after(trail, count)
        _, expected = runner.pieces(prompt[start : start + count], [count], state)
        assert found.position == expected.position
        for one, other in zip(found.leaves(), expected.leaves(), strict=True):
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            if one.size:
                both = np.array(one), np.array(other)
                assert np.allclose(*both, rtol=1e-4, atol=TOLERANCE)


def test_there_is_no_state_after_nothing_or_too_many(mixed, run, in_mlx):
    own = in_mlx(mixed.model)
    trail = passed(own, mixed.prompt[:4], own.init_state())

    for count in (0, 5):
        with pytest.raises(ValueError, match="no state after"):
            trail.after(count)


def test_a_guess_outside_the_vocabulary_is_refused(mixed):
    with pytest.raises(TokenRangeError):
        mixed.model.pass_over([1, 10**6], mixed.model.init_state())
