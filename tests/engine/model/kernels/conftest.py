"""Metal kernels on the C++ compiler of the machine; skipped where there is none."""

import importlib.util
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from ds4_agent.engine.model.config import ModelConfig

METAL = Path(__file__).resolve().parents[3] / "metal"


def _emulator_module():
    spec = importlib.util.spec_from_file_location("metal_emulator", METAL / "emulator.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """A `Launch` that runs the kernels' bodies in C++."""
    module = _emulator_module()
    if not sys.platform.startswith("linux") or module.compiler() is None:
        pytest.skip("runs Metal kernels with a C++ compiler on Linux")
    return module.Emulator(tmp_path_factory.mktemp("metal"))


@pytest.fixture(scope="session")
def config():
    """Widths that divide by no tile of a kernel, heads beyond one, and what a lane needs."""
    return small_config()


def small_config(**changes):
    keys = {
        "model_type": "deepseek_v4",
        "vocab_size": 64,
        "hidden_size": 272,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "head_dim": 96,
        "qk_rope_head_dim": 32,
        "q_lora_rank": 32,
        "o_lora_rank": 32,
        "o_groups": 1,
        "index_n_heads": 70,
        "index_head_dim": 40,
        "index_topk": 37,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "sliding_window": 16,
        "num_hash_layers": 0,
        "max_position_embeddings": 4096,
        "compress_ratios": [0, 4, 128],
    }
    return ModelConfig.from_json({**keys, **changes})


@pytest.fixture(scope="session")
def published():
    """The sizes of DeepSeek V4 Flash that a kernel depends on."""
    return small_config(
        hidden_size=4096,
        num_attention_heads=64,
        head_dim=512,
        qk_rope_head_dim=64,
        o_groups=8,
        index_n_heads=64,
        index_head_dim=128,
        index_topk=512,
    )


@pytest.fixture(params=[mx.float32, mx.bfloat16], ids=["fp32", "bf16"])
def dtype(request):
    return request.param
