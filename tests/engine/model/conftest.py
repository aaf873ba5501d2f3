"""The tiny models of tests/golden, loaded by the product's own loader, and ways to run a model."""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.state import State, evaluate
from ds4_agent.engine.weights.checkpoint import load_model

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
CASES = ("mixed", "yarn", "nano")


def golden_module(name):
    """A module of tests/golden, which is no installed package."""
    spec = importlib.util.spec_from_file_location(f"golden_{name}", GOLDEN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Golden:
    """A case: the engine's model and what transformers computed with the same weights."""

    name: str
    model: Model
    prompt: list[int]
    logits: np.ndarray  # [prompt, vocab]
    continuation: list[int]


@dataclass(frozen=True)
class Runner:
    """Runs a model in pieces. Each piece is evaluated, as the engine does."""

    model: Model

    def pieces(
        self, tokens: Sequence[int], sizes: Iterable[int], state: State | None = None
    ) -> tuple[np.ndarray, State]:
        """Logits [tokens, vocab] and the state, `tokens` cut into pieces of `sizes`."""
        state = self.model.init_state() if state is None else state
        lines, start = [], 0
        for size in sizes:
            piece = tokens[start : start + size]
            if not piece:
                break
            logits, state = self.model.logits_all(piece, state)
            evaluate(logits, state)
            lines.append(np.array(logits))
            start += size
        assert start >= len(tokens), "the sizes do not cover the tokens"
        return np.concatenate(lines), state

    def greedy(self, logits: np.ndarray, state: State, count: int) -> list[int]:
        """`count` greedy ids from `logits` [vocab] on."""
        taken = [int(np.argmax(logits))]
        while len(taken) < count:
            lazy, state = self.model(taken[-1:], state)
            evaluate(lazy, state)
            taken.append(int(np.argmax(np.array(lazy))))
        return taken


@pytest.fixture(scope="session")
def tiny():
    """tests/golden/tiny.py."""
    return golden_module("tiny")


@pytest.fixture(scope="session")
def load_golden(tiny, tmp_path_factory):
    """`load_golden(name, **load_model's options)`: a case."""

    def load(name, **options):
        with np.load(GOLDEN / f"{name}.npz") as file:
            values = dict(file)
        config = tiny.MODELS[name]
        directory = tmp_path_factory.mktemp(name)
        tiny.write_checkpoint(directory, config, tiny.weights(config, int(values["seed"])))
        return Golden(
            name=name,
            model=load_model(directory, dtype=mx.float32, **options),
            prompt=values["ids"].tolist(),
            logits=values["logits"],
            continuation=values["continuation"].tolist(),
        )

    return load


@pytest.fixture(scope="session")
def all_golden(load_golden):
    return {name: load_golden(name) for name in CASES}


@pytest.fixture(params=CASES)
def golden(request, all_golden):
    """Every golden case in turn."""
    return all_golden[request.param]


@pytest.fixture
def mixed(all_golden):
    """The case with every kind of layer, whose prompt exceeds its window of 24 many times."""
    return all_golden["mixed"]


@pytest.fixture
def runner(golden):
    return Runner(golden.model)


@pytest.fixture(scope="session")
def run():
    """`run(model)`: a Runner."""
    return Runner
