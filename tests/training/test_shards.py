"""Rows: every target stands one after its id, and its loss code is its own."""

import numpy as np
import pytest

pytest.importorskip("torch")

from training.model import Shape
from training.shards import (
    ANY_FACTS,
    EPISODE,
    PREFIX,
    Corpus,
    Sequence,
    ShardError,
    next_rows,
    read_shard,
    task_rows,
)  # fmt: skip

SHAPE = Shape(prefix=128, rows=4, length=256)


def sequence(number, length, kind, facts=ANY_FACTS):
    """Ids that tell their loss code: even ids are context, odd ids are chosen."""
    ids = 1000 + (np.arange(length) * 7 + number) % 900
    loss = np.zeros_like(ids) if kind == PREFIX else ids % 2
    return Sequence(ids, loss, kind, facts, f"family {facts}")


@pytest.fixture
def corpus():
    filled = Corpus()
    for number in range(6):
        filled.add(sequence(number, 150 + 10 * number, PREFIX, facts=number % 2))
    for number in range(40):
        filled.add(sequence(number, 20 + 9 * number, EPISODE))
    filled.add(sequence(3, 33, EPISODE, facts=1))
    return filled


def test_rows_have_one_length_and_every_loss_code_belongs_to_its_target(corpus):
    random = np.random.default_rng(1)
    for _ in range(20):
        rows = task_rows(corpus, SHAPE, random)
        assert len(rows.ids) == len(rows.targets) == len(rows.loss) == SHAPE.tokens
        assert np.array_equal(rows.targets[rows.loss > 0] % 2, rows.loss[rows.loss > 0])


def test_within_a_row_the_targets_are_the_next_ids(corpus):
    rows = next_rows(corpus, SHAPE, np.random.default_rng(2), copying=0.5)
    ids = rows.ids[SHAPE.prefix :].reshape(SHAPE.rows, SHAPE.length)
    targets = rows.targets[SHAPE.prefix :].reshape(SHAPE.rows, SHAPE.length)
    assert np.array_equal(ids[:, 1:], targets[:, :-1])


def test_an_episode_that_needs_facts_stands_only_behind_them(corpus):
    random = np.random.default_rng(3)
    corpus.prefixes = [prefix for prefix in corpus.prefixes if prefix.facts == 0]
    families = {
        span.family for _ in range(30) for span in task_rows(corpus, SHAPE, random).episodes
    }
    assert families == {"family -1"}


def test_a_shard_of_another_tokenizer_is_refused(tmp_path):
    path = tmp_path / "train-000.npz"
    np.savez(path, ids=np.zeros(1, np.uint16), tokenizer=np.array("other"))
    with pytest.raises(ShardError, match="another tokenizer"):
        read_shard(path)
