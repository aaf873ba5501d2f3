"""The engine against transformers' golden logits: however a sequence is cut, forked or rewound, the
logits differ by at most 2e-5 and the greedy continuation is the same."""

import itertools

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model import attention, indexer, rows, tiles
from ds4_agent.engine.model.prefill import prefill

TOLERANCE = 2e-5


def random_sizes(seed):
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(1, 90))


def largest_difference(found, expected):
    return float(np.abs(found - expected).max())


def assert_exact(golden, runner, logits, state, start=0):
    """`logits` are those of the prompt from `start` on, and `state` stands behind it."""
    assert largest_difference(logits, golden.logits[start:]) <= TOLERANCE
    assert runner.greedy(logits[-1], state, len(golden.continuation)) == golden.continuation


def test_the_cases_are_as_demanding_as_promised(all_golden):
    configs = {name: golden.model.config for name, golden in all_golden.items()}
    for golden in all_golden.values():
        assert set(golden.model.config.layer_kinds) == {"sliding", "csa", "hca"}
        assert set(golden.model.config.hash_routed) == {True, False}
        assert len(golden.prompt) >= 3 * 128
    for name in ("mixed", "yarn"):
        assert configs[name].index_n_heads == 64
        assert configs[name].index_topk < len(all_golden[name].prompt) // configs[name].csa_ratio
    assert len(all_golden["mixed"].prompt) > 10 * configs["mixed"].sliding_window
    assert configs["yarn"].rope_scaling is not None
    assert configs["nano"].index_topk > len(all_golden["nano"].prompt)


def test_one_shot(golden, runner):
    logits, state = runner.pieces(golden.prompt, [len(golden.prompt)])

    assert_exact(golden, runner, logits, state)


@pytest.mark.parametrize("size", [3, 127, 128, 129])
def test_pieces_of_one_size(golden, runner, size):
    logits, state = runner.pieces(golden.prompt, itertools.repeat(size))

    assert_exact(golden, runner, logits, state)


@pytest.mark.parametrize("seed", [1, 2])
def test_pieces_of_random_sizes(golden, runner, seed):
    logits, state = runner.pieces(golden.prompt, random_sizes(seed))

    assert_exact(golden, runner, logits, state)


def test_token_by_token(mixed, run):
    logits, state = run(mixed.model).pieces(mixed.prompt, itertools.repeat(1))

    assert_exact(mixed, run(mixed.model), logits, state)


def test_token_by_token_behind_a_prefill(golden, runner):
    """The last tokens one at a time, across a boundary of both compression ratios."""
    sizes = [380, *itertools.repeat(1, len(golden.prompt) - 380)]

    logits, state = runner.pieces(golden.prompt, sizes)

    assert_exact(golden, runner, logits, state)


@pytest.mark.parametrize("chunk", [3, 127, 128, 129, 512])
def test_prefill(golden, runner, chunk):
    reached = []

    logits, state = prefill(
        golden.model,
        golden.prompt,
        golden.model.init_state(),
        chunk=chunk,
        on_chunk=lambda done, at: reached.append((done, at.position)) or True,
    )

    assert reached[-1] == (len(golden.prompt), len(golden.prompt))
    assert all(done == position for done, position in reached)
    assert_exact(golden, runner, np.array(logits)[None], state, len(golden.prompt) - 1)


def test_prefill_stopped_and_resumed(golden, runner):
    model, prompt = golden.model, golden.prompt

    _, state = prefill(model, prompt, model.init_state(), chunk=100, on_chunk=lambda *_: False)
    assert state.position == 100
    logits, state = prefill(model, prompt[100:], state, chunk=128)

    assert_exact(golden, runner, np.array(logits)[None], state, len(prompt) - 1)


@pytest.mark.parametrize("at", [0, 129, 255, 256, 333])
def test_after_a_rewind(golden, runner, at):
    """Other tokens were computed behind the checkpoint; going back to it forgets them."""
    model, prompt = golden.model, golden.prompt
    checkpoint = runner.pieces(prompt[:at], [at])[1] if at else model.init_state()
    runner.pieces(prompt[::-1], [150, len(prompt)], checkpoint)

    logits, state = runner.pieces(prompt[at:], [len(prompt)], checkpoint)

    assert_exact(golden, runner, logits, state, at)


def test_a_fork_goes_on_like_its_origin(golden, runner):
    logits, origin = runner.pieces(golden.prompt, [300, len(golden.prompt)])
    fork = origin

    assert_exact(golden, runner, logits, origin)
    assert_exact(golden, runner, logits, fork)


def test_two_forks_run_alternately(golden, runner):
    """One follows the golden prompt, the other its own tokens; neither notices the other."""
    prompt, others = golden.prompt, golden.prompt[::-1]
    _, root = runner.pieces(prompt[:301], [301])
    alone, _ = runner.pieces(others[:149], itertools.cycle([4, 5]), root)
    ours, theirs, mine, other = root, root, [], []
    for start in range(0, 149, 9):
        line, ours = runner.pieces(prompt[301 + start : 310 + start], [9], ours)
        mine.append(line)
        line, theirs = runner.pieces(others[:149][start : start + 9], [4, 5], theirs)
        other.append(line)

    assert_exact(golden, runner, np.concatenate(mine), ours, 301)
    # The same pieces, so the same bits; cut otherwise, these tokens may meet a tie of the indexer.
    assert np.array_equal(np.concatenate(other), alone)


def test_tiles_and_blocks_of_other_sizes(golden, runner, monkeypatch):
    """A prompt of 450 tokens fills no block and no tile of the real sizes; with small ones it takes
    the ways that a prompt of a million takes."""
    monkeypatch.setattr(rows, "OPEN_ROWS", 8)
    monkeypatch.setattr(rows, "FULL_ROWS", 32)
    monkeypatch.setattr(indexer, "TILE_ROWS", 12)
    monkeypatch.setattr(indexer, "SCORED_QUERIES", 5)
    monkeypatch.setattr(attention, "QUERY_TILE", 7)
    monkeypatch.setattr(attention, "DENSE_ROWS", 0)
    monkeypatch.setattr(tiles, "CPU_SCORES", 4096)
    monkeypatch.setattr(tiles, "GPU_SCORES", 4096)

    logits, state = runner.pieces(golden.prompt, itertools.repeat(129))

    assert any(layer.rows and len(layer.rows.full) >= 2 for layer in state.layers)
    assert_exact(golden, runner, logits, state)


def test_an_equal_call_gives_equal_bits(mixed, run):
    first, _ = run(mixed.model).pieces(mixed.prompt, [200, 250])
    again, _ = run(mixed.model).pieces(mixed.prompt, [200, 250])

    assert mx.array_equal(mx.array(first), mx.array(again))
