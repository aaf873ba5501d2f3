"""The training model is DeepSeek V4: same weights, same numbers as transformers' model."""

import pytest

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from training.config import CSA, HCA, SLIDING, NanoConfig, transformers_config  # noqa: E402
from training.model import Model, Shape  # noqa: E402
from training.weights import initial_weights  # noqa: E402

TINY = NanoConfig(
    vocab_size=96,
    hidden_size=48,
    layer_types=(SLIDING, CSA, HCA),
    hash_layers=1,
    heads=4,
    head_dim=16,
    rope_dim=8,
    q_lora_rank=24,
    o_lora_rank=12,
    window=192,
    expert_width=20,
)
SHAPES = (Shape(prefix=128, rows=2, length=256), Shape(prefix=384, rows=1, length=128))


def oracle(weights):
    config = transformers.DeepseekV4Config(**transformers_config(TINY))
    config._attn_implementation = "eager"
    model = transformers.DeepseekV4ForCausalLM(config).float().eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("inv_freq" in name for name in missing)
    return model


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_transformers_for_every_row_behind_a_shared_prefix(shape):
    weights = initial_weights(TINY, seed=3)
    for name in weights:
        if weights[name].is_floating_point() and weights[name].dim() < 2:
            weights[name] += 0.3 * torch.randn_like(weights[name])
    ids = torch.randint(0, TINY.vocab_size, (shape.tokens,), generator=torch.manual_seed(5))
    with torch.no_grad():
        hidden, _ = Model(TINY, compiled=False).hidden(weights, ids, shape)
        logits = hidden @ weights["lm_head.weight"].T
        prefix = ids[: shape.prefix]
        rows = ids[shape.prefix :].view(shape.rows, shape.length)
        model = oracle(weights)
        for row in range(shape.rows):
            expected = model(torch.cat([prefix, rows[row]])[None]).logits[0]
            begin = shape.prefix + row * shape.length
            ours = torch.cat([logits[: shape.prefix], logits[begin : begin + shape.length]])
            assert (ours - expected).abs().max() < 1e-4


def test_products_in_bf16_stay_close_to_those_in_fp32():
    weights, shape = initial_weights(TINY, seed=3), SHAPES[0]
    ids = torch.randint(0, TINY.vocab_size, (shape.tokens,), generator=torch.manual_seed(5))
    with torch.no_grad():
        exact, _ = Model(TINY, compiled=False).hidden(weights, ids, shape)
        model = Model(TINY, compiled=False, products=torch.bfloat16)
        rounded, _ = model.hidden(weights, ids, shape)

    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.05
