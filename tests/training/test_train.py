"""A step of training, behind fronts too, and fronts that are replaced when they are used up."""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.config import CSA, SLIDING, NanoConfig, transformers_config  # noqa: E402
from training.front import Fronts, Size  # noqa: E402
from training.model import Model, Shape  # noqa: E402
from training.optimizer import initial_state, is_trained  # noqa: E402
from training.shards import (  # noqa: E402
    ANY_FACTS,
    EPISODE,
    FRONT,
    PREFIX,
    Corpus,
    Sequence,
    task_rows,
)
from training.train import Progress, Run, config_of, step  # noqa: E402
from training.weights import initial_weights  # noqa: E402

CONFIG = dataclasses.replace(
    NanoConfig(), hidden_size=64, heads=2, head_dim=32, rope_dim=16, q_lora_rank=32,
    o_lora_rank=32, expert_width=32, window=128,
)  # fmt: skip
SHAPE = Shape(prefix=128, rows=2, length=256)
ALWAYS = Size(1024, 2048, 1.0, SHAPE)


@pytest.fixture
def corpus():
    filled = Corpus()
    random = np.random.default_rng(1)
    for kind, size, count in ((PREFIX, 200, 3), (EPISODE, 60, 20), (FRONT, 4000, 2)):
        for _ in range(count):
            ids = random.integers(20, 2000, size)
            loss = np.full(size, 1 if kind == EPISODE else 0)
            filled.add(Sequence(ids, loss, kind, ANY_FACTS, "x"))
    return filled


@pytest.fixture
def run(tmp_path):
    weights = initial_weights(CONFIG, 2)
    for name, weight in weights.items():
        weight.requires_grad_(weight.is_floating_point() and is_trained(name))
    random = np.random.default_rng(2)
    return Run(tmp_path, tmp_path, CONFIG, weights, initial_state(weights), Progress(), random, 4)


def test_steps_behind_one_front_learn_what_stands_behind_it(run, corpus):
    model = Model(CONFIG, compiled=False)
    fronts = Fronts(Model(CONFIG, compiled=False), (ALWAYS,), uses=100)
    front, shape = fronts.drawn(run.weights, corpus, run.random)
    rows = task_rows(corpus, shape, run.random, before=front.before)
    losses = [step(run, model, rows, 1.0, shape, front) for _ in range(6)]
    assert losses[-1] < losses[0] - 0.5


def test_a_front_serves_its_uses_and_is_replaced(run, corpus):
    fronts = Fronts(Model(CONFIG, compiled=False), (ALWAYS,), uses=3)
    drawn = [fronts.drawn(run.weights, corpus, run.random)[0] for _ in range(6)]
    assert [front is drawn[0] for front in drawn[:4]] == [True, True, True, False]
    assert drawn[3] is drawn[5]


def test_sizes_are_drawn_by_their_shares(run, corpus):
    sizes = (dataclasses.replace(ALWAYS, share=0.3), Size(1024, 1024, 0.2, SHAPE))
    fronts = Fronts(Model(CONFIG, compiled=False), sizes, uses=1000)
    drawn = [fronts.drawn(run.weights, corpus, run.random) for _ in range(400)]
    assert 150 < sum(each is None for each in drawn) < 250
    assert len({id(each[0]) for each in drawn if each}) == 2


def test_the_sizes_of_training_reach_a_handbook(run):
    sizes = run.front_sizes
    assert max(size.most for size in sizes) >= 24_000
    assert min(size.least for size in sizes) >= CONFIG.window
    # The indexer is not trained: no prompt of training may reach it.
    longest = max(size.most + size.batch.prefix + size.batch.length for size in sizes)
    assert longest / NanoConfig().csa_rate <= NanoConfig().index_topk


def test_the_config_of_an_export_has_its_layers(tmp_path):
    config = dataclasses.replace(NanoConfig(), layer_types=(SLIDING, CSA))
    (tmp_path / "config.json").write_text(json.dumps(transformers_config(config)))
    assert config_of(tmp_path) == config
