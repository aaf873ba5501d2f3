"""A tiny random model with every kind of layer, and the engine that runs it. Real files, real
weights, the product's own loader; small enough that a token takes milliseconds."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from ds4_agent.engine.local import ModelEngine
from ds4_agent.engine.open import NANO

BENCH = Path(__file__).resolve().parents[2] / "bench"


def random_model():
    """bench/random_model.py, which is no installed package."""
    spec = importlib.util.spec_from_file_location("random_model", BENCH / "random_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def write_tiny():
    """Write a tiny checkpoint directory with the bundled tokenizer; returns its path."""
    module = random_model()

    def write(directory, seed=1, **keys):
        config = module.config_of(
            layer_kinds="sCHC",
            hash_layers=1,
            **{
                "vocab_size": 2048,
                "hidden_size": 64,
                "moe_intermediate_size": 32,
                "num_attention_heads": 4,
                "head_dim": 32,
                "q_lora_rank": 32,
                "o_groups": 2,
                "o_lora_rank": 16,
                "n_routed_experts": 4,
                "index_head_dim": 32,
                "index_topk": 16,
                "sliding_window": 32,
                "max_position_embeddings": 4096,
                **keys,
            },
        )
        module.write_model(directory, config, seed)
        shutil.copy(NANO / "tokenizer.json", directory / "tokenizer.json")
        return directory

    return write


@pytest.fixture(scope="session")
def tiny(write_tiny, tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def engine(tiny):
    engine = ModelEngine(tiny)
    yield engine
    engine.close()
