"""Rows: every target stands one after its id, and its loss code is its own."""

import numpy as np
import pytest

pytest.importorskip("torch")

from training.model import Shape
from training.shards import (
    ANY_FACTS,
    CONVERSATIONS,
    EPISODE,
    FRONT,
    PREFIX,
    Corpus,
    Sequence,
    ShardError,
    front_text,
    next_rows,
    read_shard,
    task_rows,
)  # fmt: skip
from training.tokenizer import BOS, control_id

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


def test_what_the_prompt_decides_is_asked_first_in_a_part_of_the_rows(corpus):
    """One episode in forty needs facts, but it opens a fifth of the rows behind these facts."""
    random = np.random.default_rng(3)
    corpus.prefixes = [prefix for prefix in corpus.prefixes if prefix.facts == 1]
    firsts = []
    for _ in range(200):
        spans = task_rows(corpus, SHAPE, random).episodes
        begins = {(span.begin - SHAPE.prefix) // SHAPE.length: span for span in reversed(spans)}
        firsts += [span.family for span in begins.values()]
    share = firsts.count("family 1") / len(firsts)
    assert 0.1 < share < 0.4


def test_behind_a_text_rows_begin_with_a_prompt_that_has_no_beginning_of_its_own(corpus):
    corpus.add(sequence(5, 4000, FRONT))
    random = np.random.default_rng(4)
    befores = [front_text(corpus, 2048, random) for _ in range(30)]
    assert all(len(before.ids) == 2048 for before in befores)
    text = next(before for before in befores if before.facts is None)
    assert text.ids[0] == control_id(BOS)
    starts = {tuple(prefix.ids[1:30]) for prefix in corpus.prefixes}
    seen = [tuple(task_rows(corpus, SHAPE, random, before=text).ids[:29]) for _ in range(30)]
    assert starts & set(seen)
    assert all(len(task_rows(corpus, SHAPE, random, before=b).ids) == SHAPE.tokens for b in befores)


def test_a_long_conversation_keeps_to_its_facts(corpus):
    """An episode that needs facts 1 stands in rows behind a prompt with facts 1 only."""
    random = np.random.default_rng(5)
    for _ in range(20):
        before = front_text(corpus, 1024, random)  # no texts: conversations alone
        assert before.facts is not None
        families = {
            span.family for span in task_rows(corpus, SHAPE, random, before=before).episodes
        }
        assert families <= {"family -1", f"family {before.facts}"}


def test_a_front_that_is_too_short_is_refused(corpus):
    corpus.add(sequence(5, 100, FRONT))
    random = np.random.default_rng(1)
    assert random.random() > CONVERSATIONS  # so that a text is drawn
    with pytest.raises(ShardError, match="too short"):
        front_text(corpus, 2048, np.random.default_rng(1))


def test_a_shard_of_another_tokenizer_is_refused(tmp_path):
    path = tmp_path / "train-000.npz"
    np.savez(path, ids=np.zeros(1, np.uint16), tokenizer=np.array("other"))
    with pytest.raises(ShardError, match="another tokenizer"):
        read_shard(path)
