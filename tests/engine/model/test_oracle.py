"""The engine against transformers, live, on freshly drawn weights and prompts (installed in CI)."""

import importlib.util
import itertools
import warnings
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.weights.checkpoint import load_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

ORACLE = Path(__file__).resolve().parents[2] / "golden" / "oracle.py"
TOLERANCE = 2e-5
TOKENS, CONTINUATION = 400, 24
# Choices within fp32 noise of each other are free: a draw that makes one is passed over.
INDEX_GAP, TOKEN_GAP = 1e-5, 1e-3


@pytest.fixture(scope="module")
def oracle():
    """tests/golden/oracle.py; torch and transformers are loaded here and not at collection."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch").set_num_threads(1)
        pytest.importorskip("transformers")
        spec = importlib.util.spec_from_file_location("golden_oracle", ORACLE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@pytest.fixture(scope="module", params=itertools.product(("mixed", "yarn"), (1001, 2001)))
def drawn(request, oracle, tiny, tmp_path_factory):
    """(the engine's model, the prompt, the oracle's run) of the first decided draw."""
    name, first = request.param
    config = tiny.MODELS[name]
    for seed in range(first, first + 20):
        weights, prompt = tiny.weights(config, seed), tiny.prompt(config, TOKENS, seed)
        expected = oracle.Oracle(config, weights).run(prompt, CONTINUATION)
        if expected.index_gap > INDEX_GAP and expected.token_gap > TOKEN_GAP:
            directory = tiny.write_checkpoint(tmp_path_factory.mktemp(name), config, weights)
            return load_model(directory, dtype=mx.float32), prompt, expected
    raise AssertionError(f"{name}: no draw from {first} on decides clearly enough")


@pytest.mark.parametrize("sizes", [(TOKENS,), (128,), (1, 3, 127, 129, 60)], ids=str)
def test_logits_and_continuation_are_those_of_transformers(drawn, run, sizes):
    model, prompt, expected = drawn

    logits, state = run(model).pieces(prompt, itertools.cycle(sizes))

    assert np.abs(logits - expected.logits).max() <= TOLERANCE
    assert run(model).greedy(logits[-1], state, CONTINUATION) == expected.continuation
