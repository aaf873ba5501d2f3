"""A config.json is read in either dialect, or refused in one line that names the key."""

import pytest

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.model.config import ModelConfig, RopeScaling

OFFICIAL = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "vocab_size": 129280,
    "hidden_size": 4096,
    "num_hidden_layers": 43,
    "num_attention_heads": 64,
    "num_key_value_heads": 1,
    "head_dim": 512,
    "qk_rope_head_dim": 64,
    "q_lora_rank": 1024,
    "o_lora_rank": 1024,
    "o_groups": 8,
    "index_n_heads": 64,
    "index_head_dim": 128,
    "index_topk": 512,
    "n_routed_experts": 256,
    "num_experts_per_tok": 6,
    "n_shared_experts": 1,
    "moe_intermediate_size": 2048,
    "norm_topk_prob": True,
    "scoring_func": "sqrtsoftplus",
    "routed_scaling_factor": 1.5,
    "num_hash_layers": 3,
    "swiglu_limit": 10.0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "hc_mult": 4,
    "hc_sinkhorn_iters": 20,
    "hc_eps": 1e-6,
    "sliding_window": 128,
    "max_position_embeddings": 1048576,
    "rope_theta": 10000,
    "compress_rope_theta": 160000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 16,
        "original_max_position_embeddings": 65536,
        "beta_fast": 32,
        "beta_slow": 1,
    },
    "compress_ratios": [0, 0] + [4, 128] * 20 + [4, 0, 0, 0],
}
TRANSFORMERS_ONLY = {
    "layer_types": ["sliding_attention"] * 43,
    "mlp_layer_types": ["moe"] * 43,
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128},
    "compress_rate_csa": 4,
    "compress_rate_hca": 128,
    "rope_parameters": {
        "main": {"rope_type": "default", "rope_theta": 10000.0},
        "compress": {"rope_type": "default", "rope_theta": 160000.0},
    },
}
STRANGE = [None, True, 0, -1, 1.5, 1e400, "x", "", [], {}, [[]], [{}], {"a": [1]}, {"type": "x"}]


def test_the_published_config():
    config = ModelConfig.from_json(OFFICIAL)

    assert config.layer_kinds[:5] == ("sliding", "sliding", "csa", "hca", "csa")
    assert config.layer_kinds.count("csa") == 21
    assert config.layer_kinds.count("hca") == 20
    assert config.hash_routed == (True,) * 3 + (False,) * 40
    assert config.rope_scaling == RopeScaling(16.0, 65536, 32.0, 1.0)
    assert (config.rope_theta, config.compress_rope_theta) == (10000.0, 160000.0)
    assert [config.ratio(layer) for layer in range(4)] == [0, 0, 4, 128]
    assert not config.kv_simulation


def test_the_published_sizes_bear_the_simulation():
    assert ModelConfig.from_json(OFFICIAL, kv_simulation=True).kv_simulation


def refusal(data):
    """The line with which a config is refused; None where it is read."""
    try:
        ModelConfig.from_json(data)
    except ModelFormatError as error:
        return str(error)
    return None


@pytest.mark.parametrize("key", [*OFFICIAL, *TRANSFORMERS_ONLY])
def test_a_strange_value_is_read_or_refused_in_one_line(key):
    """It never ends in another exception, whatever JSON stands there."""
    assert refusal({**OFFICIAL, key: TRANSFORMERS_ONLY.get(key, OFFICIAL.get(key))}) is None
    lines = [refusal({**OFFICIAL, key: value}) for value in STRANGE]
    assert all(line is None or line.startswith("config.json: ") for line in lines)
    assert not any(line and "\n" in line for line in lines)


@pytest.mark.parametrize("part", ["main", "compress"])
@pytest.mark.parametrize("key", ["rope_type", "rope_theta", "factor", "beta_fast"])
def test_a_strange_rope_is_read_or_refused_in_one_line(part, key):
    yarn = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 128}
    for value in STRANGE:
        rope = {"main": {"rope_type": "default"}, "compress": dict(yarn)}
        rope[part][key] = value
        line = refusal({**OFFICIAL, "rope_parameters": rope})
        assert line is None or line.startswith("config.json: ")


@pytest.mark.parametrize(
    "key",
    ["vocab_size", "hidden_size", "num_hidden_layers", "head_dim", "index_topk", "compress_ratios"],
)
def test_a_missing_key_is_named(key):
    with pytest.raises(ModelFormatError, match=key):
        ModelConfig.from_json({k: v for k, v in OFFICIAL.items() if k != key})
