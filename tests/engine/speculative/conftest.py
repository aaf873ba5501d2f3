"""Engines of tests/engine, and contexts of them that guess in ways of the test's own."""

from dataclasses import replace

import numpy as np
import pytest

from ds4_agent.engine.context import ModelContext
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.speculative.drafter import Offer
from ds4_agent.engine.speculative.lookahead import Lookahead
from ds4_agent.engine.speculative.pace import Pace


class Known:
    """Guesses from a list of what comes behind `start` ids, some of it made wrong: the worst and
    the best of drafters. `right` [k]: whether the guess k places behind the start is right."""

    def __init__(self, start, ids, right=lambda place: True, most=7):
        self.start, self.ids, self.right, self.most = start, ids, right, most

    def propose(self, ids):
        place = len(ids) - self.start
        draft = [
            token if self.right(place + i) else (token + 1) % 2048
            for i, token in enumerate(self.ids[place : place + self.most])
        ]
        return Offer("known", len(draft), lambda n: draft[:n], draft[0]) if draft else None


@pytest.fixture(scope="session")
def known():
    return Known


@pytest.fixture
def guessing(engine):
    """`guessing(*drafters, on=engine)`: a context of the engine that computes all their guesses;
    with none it guesses nothing."""

    def make(*drafters, runtime=engine.runtime):
        pace = Pace("on")

        def lookahead():
            return Lookahead(pace, drafters, runtime.eos)

        return ModelContext(replace(runtime, new_lookahead=lookahead if drafters else None))

    return make


@pytest.fixture(params=["numpy", "mlx"])
def runtime(request, engine):
    """The engine's, computing in one library or the other."""
    own = engine.runtime
    if request.param == "numpy":
        return own
    model = Model(own.model.config, own.model._parameters, in_numpy=False)
    return replace(own, model=model)


@pytest.fixture
def passes(monkeypatch):
    """The number of ids of every pass of more than one that went through the model."""
    sizes, pass_over = [], Model.pass_over

    def noted(model, tokens, state):
        sizes.append(len(tokens))
        return pass_over(model, tokens, state)

    monkeypatch.setattr(Model, "pass_over", noted)
    return sizes


@pytest.fixture(scope="session")
def prompt():
    return lambda length, seed=5: np.random.default_rng(seed).integers(16, 2048, length).tolist()
