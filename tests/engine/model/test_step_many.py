"""One token for each of several states in one step: every bit of its logits and its state is the
one that the state alone gives, whoever is decoded beside it."""

import numpy as np
import pytest

from ds4_agent.engine.errors import TokenRangeError
from ds4_agent.engine.model import experts, model, prefill, tiles
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.state import evaluate
from ds4_agent.engine.open import NANO
from ds4_agent.engine.weights.checkpoint import load_model

LENGTHS = (1, 3, 23, 126, 127, 128, 255, 383)  # on both sides of groups and blocks


def bits(array):
    return np.array(array, dtype=np.float32).view(np.uint32)


def assert_same(found, expected):
    """Logits and state, to the last bit."""
    assert np.array_equal(bits(found[0]), bits(expected[0]))
    assert found[1].position == expected[1].position
    for one, other in zip(found[1].leaves(), expected[1].leaves(), strict=True):
        assert np.array_equal(bits(one), bits(other))


def alone(model, token, state):
    logits, after = model([token], state)
    evaluate(logits, after)
    return logits, after


def together(model, tokens, states):
    logits, after = model.step_many(tokens, states)
    evaluate(logits, *after)
    return list(zip(logits, after, strict=True))


def states_of(model, prompt):
    """A state at each of LENGTHS."""
    states = []
    for length in LENGTHS:
        logits, state = model(prompt[:length], model.init_state())
        evaluate(logits, state)
        states.append(state)
    return states


def assert_random_batches(model, states, rounds, seed=0):
    """Batches of random members, each going on from where it stands."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        members = rng.permutation(len(states))[: rng.integers(1, len(states) + 1)].tolist()
        tokens = rng.integers(0, model.config.vocab_size, len(members)).tolist()
        results = together(model, tokens, [states[i] for i in members])
        for i, token, result in zip(members, tokens, results, strict=True):
            assert_same(result, alone(model, token, states[i]))
            states[i] = result[1]


def test_a_batch_of_any_states_gives_the_bits_of_each_alone(golden):
    assert_random_batches(golden.model, states_of(golden.model, golden.prompt), rounds=60)


def test_so_with_rows_rounded_as_in_training(write_tiny, tmp_path):
    sizes = {"head_dim": 128, "index_head_dim": 64, "ds4_kv_simulation": True}
    rounding = load_model(write_tiny(tmp_path / "model", **sizes))
    prompt = np.random.default_rng(2).integers(0, 2048, max(LENGTHS)).tolist()

    assert rounding.config.kv_simulation
    assert_random_batches(rounding, states_of(rounding, prompt), rounds=20)


def test_so_through_whole_blocks(mixed):
    """Two of different lengths, each over more than a block of 128 tokens, rows gathered."""
    states = states_of(mixed.model, mixed.prompt)
    pair = [states[3], states[-1]]
    for token in mixed.prompt[:140]:
        results = together(mixed.model, [token, token], pair)
        for result, state in zip(results, pair, strict=True):
            assert_same(result, alone(mixed.model, token, state))
        pair = [after for _, after in results]


@pytest.fixture(scope="module")
def nano():
    return load_model(NANO)


def test_greedy_continuations_of_the_bundled_model_are_the_same_to_the_last_id(nano):
    rng = np.random.default_rng(4)
    prompts = [rng.integers(16, 2048, length).tolist() for length in (5, 120, 127, 260, 300)]
    begun = [nano(prompt, nano.init_state()) for prompt in prompts]
    count = 200

    ids, states = [int(np.argmax(logits)) for logits, _ in begun], [state for _, state in begun]
    lines = [[i] for i in ids]
    while len(lines[0]) < count:
        logits, states = nano.step_many(ids, states)
        ids = np.argmax(logits, axis=1).tolist()
        for line, taken in zip(lines, ids, strict=True):
            line.append(taken)

    for line, (logits, state) in zip(lines, begun, strict=True):
        expected = [int(np.argmax(logits))]
        while len(expected) < count:
            logits, state = nano(expected[-1:], state)  # noqa: PLW2901 - it goes on from here
            expected.append(int(np.argmax(logits)))
        assert line == expected


def test_forks_of_one_state_part_ways_and_leave_it_as_it_was(mixed):
    _, state = mixed.model(mixed.prompt[:254], mixed.model.init_state())
    before = [bits(leaf).copy() for leaf in state.leaves()]
    tokens = [3, 5, 3, 8]

    first = together(mixed.model, tokens, [state] * 4)
    second = together(mixed.model, [1, 2, 3, 4], [after for _, after in first])

    for token, result in zip(tokens, first, strict=True):
        assert_same(result, alone(mixed.model, token, state))
    for token, (_, between), result in zip([1, 2, 3, 4], first, second, strict=True):
        assert_same(result, alone(mixed.model, token, between))
    for leaf, kept in zip(state.leaves(), before, strict=True):
        assert np.array_equal(bits(leaf), kept)


def test_a_state_of_mlx_beside_one_of_numpy(mixed):
    plain = Model(mixed.model.config, mixed.model._parameters, in_numpy=False)
    logits, from_mlx = plain(mixed.prompt[:200], plain.init_state())
    evaluate(logits, from_mlx)
    _, from_numpy = mixed.model(mixed.prompt[:77], mixed.model.init_state())
    states = [from_mlx, from_numpy, mixed.model.init_state()]

    results = together(mixed.model, [9, 8, 7], states)

    for token, state, result in zip([9, 8, 7], states, results, strict=True):
        assert_same(result, alone(mixed.model, token, state))


def test_on_a_gpu_each_gets_what_it_gets_alone(mixed, monkeypatch):
    for module in (experts, model, prefill, tiles):
        monkeypatch.setattr(module, "on_cpu", lambda: False)
    on_gpu = Model(mixed.model.config, mixed.model._parameters)

    assert not on_gpu.is_in_numpy
    assert_random_batches(on_gpu, states_of(on_gpu, mixed.prompt)[2:6], rounds=4)


def test_a_wrong_token_is_named(mixed):
    states = [mixed.model.init_state()] * 2

    with pytest.raises(TokenRangeError, match="token id 999999 is not in the vocabulary"):
        mixed.model.step_many([5, 999_999], states)
    with pytest.raises(ValueError, match="1 tokens for 2 states"):
        mixed.model.step_many([5], states)


# Memory


def buffers(states):
    """{address: bytes} of the memory that numpy states hold on to, each buffer once."""
    held = {}
    for state in states:
        for leaf in state.leaves():
            owner = leaf
            while isinstance(owner.base, np.ndarray):
                owner = owner.base
            held[owner.ctypes.data] = owner.nbytes
    return held


def test_a_hundred_forks_of_a_long_state_hold_only_what_is_their_own(nano):
    """Each its windows and open groups, however long the state; the history stands there once."""
    rng = np.random.default_rng(6)
    length = 4 * 1024 + 600
    state, chunk = nano.init_state(), 1024
    prompt = rng.integers(16, 2048, length).tolist()
    for start in range(0, length, chunk):
        _, state = nano(prompt[start : start + chunk], state)
    forks = [state] * 100
    for _ in range(3):
        for start in range(0, 100, 10):
            tokens = rng.integers(16, 2048, 10).tolist()
            _, forks[start : start + 10] = nano.step_many(tokens, forks[start : start + 10])

    shared = buffers([state])
    own = {at: size for at, size in buffers(forks).items() if at not in shared}

    frontier = sum(
        sum(leaf.nbytes for leaf in (layer.window, layer.pending) if leaf is not None)
        + sum(rows.open.nbytes for rows in (layer.rows, layer.index_rows) if rows is not None)
        for layer in forks[0].layers
    )
    assert sum(own.values()) <= 100 * frontier
    assert frontier < 1_300_000
    for fork in forks:
        for layer, before in zip(fork.layers, state.layers, strict=True):
            if before.rows is not None:
                pairs = zip(layer.rows.growing, before.rows.growing, strict=True)
                assert all(own is shared_one for own, shared_one in pairs)


def test_a_fork_that_finishes_a_block_copies_no_older_ones(nano):
    """1,024 tokens of CSA are a block of 256 rows, four of which are one by now."""
    rng = np.random.default_rng(8)
    prompt = rng.integers(16, 2048, 4 * 1024 + 1023).tolist()
    state = nano.init_state()
    for start in range(0, len(prompt), 1024):
        _, state = nano(prompt[start : start + 1024], state)

    _, fork = nano([5], state)

    for layer, before in zip(fork.layers, state.layers, strict=True):
        if before.index_rows is not None:
            assert [len(block) for block in before.rows.growing] == [1024]
            assert [len(block) for block in layer.rows.growing] == [1024, 256]
            assert layer.rows.growing[0] is before.rows.growing[0]
            assert layer.index_rows.growing[0] is before.index_rows.growing[0]
