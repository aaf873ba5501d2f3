"""A batch behind a front is the same as one behind all the tokens the front stands for."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.config import NanoConfig  # noqa: E402
from training.front import PIECE_TOKENS, compute  # noqa: E402
from training.model import Model, Shape  # noqa: E402
from training.weights import initial_weights  # noqa: E402

CONFIG = dataclasses.replace(
    NanoConfig(), hidden_size=64, heads=2, head_dim=32, rope_dim=16, q_lora_rank=32,
    o_lora_rank=32, expert_width=32, window=128,
)  # fmt: skip
BATCH = Shape(prefix=128, rows=2, length=128)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_front_stands_for_its_tokens(pieces):
    weights = initial_weights(CONFIG, 3)
    model = Model(CONFIG, compiled=False)
    tokens = pieces * PIECE_TOKENS
    ids = np.random.default_rng(1).integers(20, CONFIG.vocab_size, tokens + BATCH.tokens)
    front = compute(model, weights, ids[:tokens], 4096, BATCH)
    behind, _ = model.hidden(weights, torch.from_numpy(ids[tokens:]), BATCH, front)
    whole = Shape(tokens + BATCH.prefix, BATCH.rows, BATCH.length)
    plain, _ = model.hidden(weights, torch.from_numpy(ids), whole)
    assert torch.allclose(behind, plain[tokens:], atol=2e-4)


def test_another_front_changes_what_comes_behind_it():
    weights = initial_weights(CONFIG, 3)
    model = Model(CONFIG, compiled=False)
    random = np.random.default_rng(1)
    batch = torch.from_numpy(random.integers(20, CONFIG.vocab_size, BATCH.tokens))
    seen = []
    for _ in range(2):
        ids = random.integers(20, CONFIG.vocab_size, PIECE_TOKENS)
        front = compute(model, weights, ids, 4096, BATCH)
        seen.append(model.hidden(weights, batch, BATCH, front)[0])
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)


def test_the_gradient_ends_at_the_front():
    weights = initial_weights(CONFIG, 3)
    for weight in weights.values():
        weight.requires_grad_(weight.is_floating_point())
    model = Model(CONFIG, compiled=False)
    random = np.random.default_rng(2)
    only = np.full(PIECE_TOKENS, 50)
    front = compute(model, weights, only, 4096, BATCH)
    batch = torch.from_numpy(random.integers(100, CONFIG.vocab_size, BATCH.tokens))
    hidden, _ = model.hidden(weights, batch, BATCH, front)
    hidden.square().mean().backward()
    gradient = weights["model.embed_tokens.weight"].grad
    assert gradient[100:].abs().sum() > 0
    assert gradient[50].abs().sum() == 0


def test_a_front_of_another_length_is_refused():
    model = Model(CONFIG, compiled=False)
    with pytest.raises(ValueError, match="multiple of 1024"):
        compute(model, initial_weights(CONFIG, 3), np.zeros(100, np.int64), 4096, BATCH)
