"""Drawing an id: exact probabilities, the grammar's word is final, broken logits are an error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ds4_agent.engine.api import Sampling
from ds4_agent.engine.dsml.constraints import Forced, Free, OneOf
from ds4_agent.engine.errors import EngineError
from ds4_agent.engine.sampler import choose, generator, probabilities

FREE = Free(frozenset())
GREEDY = Sampling(temperature=0.0)


def logits_of(*chances):
    """Logits whose softmax is `chances`."""
    return np.log(np.array(chances, dtype=np.float64)).astype(np.float32)


def draws(logits, sampling, constraint=FREE, count=20_000):
    rng = np.random.default_rng(7)
    ids = [choose(logits, constraint, sampling, rng) for _ in range(count)]
    return np.bincount(ids, minlength=len(logits)) / count


# Greedy


def test_temperature_zero_takes_the_largest():
    rng = np.random.default_rng(0)

    assert choose(logits_of(0.2, 0.5, 0.3), FREE, GREEDY, rng) == 1


def test_a_tie_goes_to_the_lowest_id():
    rng = np.random.default_rng(0)
    logits = np.array([0, 3, 3, 3], dtype=np.float32)

    assert choose(logits, FREE, GREEDY, rng) == 1
    assert choose(logits, OneOf(frozenset({3, 2})), GREEDY, rng) == 2


def test_greedy_uses_no_random_number():
    rng = np.random.default_rng(0)
    choose(logits_of(0.2, 0.8), FREE, GREEDY, rng)

    assert rng.random() == np.random.default_rng(0).random()


# The distribution


def test_temperature_one_is_the_softmax():
    chances = [0.1, 0.2, 0.3, 0.4]

    assert probabilities(logits_of(*chances), Sampling()) == pytest.approx(chances, abs=1e-6)


def test_temperature_sharpens_as_a_power():
    chances = np.array([0.1, 0.2, 0.3, 0.4])
    sharp = chances**2 / (chances**2).sum()

    found = probabilities(logits_of(*chances), Sampling(temperature=0.5))

    assert found == pytest.approx(sharp, abs=1e-6)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1.0, [0.1, 0.2, 0.3, 0.4]),
        (0.95, [0.1, 0.2, 0.3, 0.4]),
        (0.85, [0, 2 / 9, 3 / 9, 4 / 9]),
        (0.5, [0, 0, 3 / 7, 4 / 7]),
        (0.3, [0, 0, 0, 1]),
        (0.0, [0, 0, 0, 1]),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p, expected):
    found = probabilities(logits_of(0.1, 0.2, 0.3, 0.4), Sampling(top_p=top_p))

    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("min_p", "expected"),
    [(0.0, [0.1, 0.2, 0.7]), (0.2, [0, 2 / 9, 7 / 9]), (0.9, [0, 0, 1]), (1.0, [0, 0, 1])],
)
def test_min_p_keeps_what_is_near_the_likeliest(min_p, expected):
    found = probabilities(logits_of(0.1, 0.2, 0.7), Sampling(min_p=min_p))

    assert found == pytest.approx(expected, abs=1e-6)


def test_top_p_of_a_flat_large_vocabulary_looks_beyond_the_first_guess():
    found = probabilities(np.zeros(5000, dtype=np.float32), Sampling(top_p=0.9))

    assert np.count_nonzero(found) in (4500, 4501)
    assert np.flatnonzero(found)[-1] in (4499, 4500)  # ties: the lower ids stay


@given(
    arrays(np.int16, st.integers(1, 40), elements=st.integers(-240, 240)),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.floats(0.05, 3.0),
)
def test_probabilities_are_always_a_distribution_that_keeps_the_likeliest(
    eighths, top_p, min_p, temperature
):
    logits = eighths.astype(np.float32) / 8
    found = probabilities(logits, Sampling(temperature, top_p, min_p))

    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    assert found[np.argmax(logits)] == found.max() > 0


def test_draws_follow_the_probabilities():
    chances = np.array([0.05, 0.15, 0.3, 0.5])
    found = draws(logits_of(*chances), Sampling())

    assert found == pytest.approx(chances, abs=0.015)  # four standard deviations


def test_draws_follow_the_probabilities_renormalised_after_the_mask():
    logits = logits_of(0.1, 0.2, 0.3, 0.4)

    banned = draws(logits, Sampling(), Free(frozenset({3})), count=10_000)
    chosen = draws(logits, Sampling(), OneOf(frozenset({0, 3})), count=10_000)

    assert banned == pytest.approx([1 / 6, 2 / 6, 3 / 6, 0], abs=0.02)
    assert chosen == pytest.approx([0.2, 0, 0, 0.8], abs=0.02)


def test_top_p_counts_within_the_mask():
    logits = logits_of(0.02, 0.03, 0.95)
    found = draws(logits, Sampling(top_p=0.9), Free(frozenset({2})), count=2000)

    assert found == pytest.approx([0.4, 0.6, 0], abs=0.05)


# The grammar


def test_a_forced_run_is_its_first_id():
    assert choose(logits_of(0.5, 0.5), Forced((1, 0)), GREEDY, np.random.default_rng(0)) == 1


@given(st.sets(st.integers(0, 19), max_size=19), st.integers(0, 1000))
def test_a_banned_id_never_comes(banned, seed):
    logits = np.zeros(20, dtype=np.float32)
    logits[list(banned)] = 50
    rng = np.random.default_rng(seed)

    for sampling in (Sampling(), GREEDY, Sampling(top_p=0.5, min_p=0.1)):
        assert choose(logits, Free(frozenset(banned)), sampling, rng) not in banned


@pytest.mark.parametrize("constraint", [OneOf(frozenset()), Free(frozenset({0, 1}))])
def test_a_constraint_that_allows_nothing_is_an_error(constraint):
    with pytest.raises(EngineError, match="allows no token"):
        choose(logits_of(0.5, 0.5), constraint, GREEDY, np.random.default_rng(0))


# Broken logits


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("constraint", [FREE, OneOf(frozenset({0}))])
def test_logits_that_are_not_finite_are_an_error(bad, constraint):
    logits = np.array([0, bad, 1], dtype=np.float32)

    with pytest.raises(EngineError, match="not finite; its weights are damaged"):
        choose(logits, constraint, GREEDY, np.random.default_rng(0))


# Seeds


def test_a_seed_and_a_place_give_the_same_draws():
    logits = np.zeros(1000, dtype=np.float32)

    def at(seed, position):
        rng = generator(Sampling(seed=seed), position)
        return [choose(logits, FREE, Sampling(seed=seed), rng) for _ in range(5)]

    assert at(3, 10) == at(3, 10)
    assert at(3, 10) != at(3, 11)
    assert at(3, 10) != at(4, 10)


def test_without_a_seed_draws_differ():
    logits = np.zeros(100_000, dtype=np.float32)
    first, second = (generator(Sampling(), 0) for _ in range(2))

    assert [choose(logits, FREE, Sampling(), first) for _ in range(4)] != [
        choose(logits, FREE, Sampling(), second) for _ in range(4)
    ]
