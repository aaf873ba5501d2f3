"""What the trainer exports is a checkpoint transformers loads, and it gives the same logits."""

import pytest

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from training.config import CSA, HCA, SLIDING, NanoConfig  # noqa: E402
from training.export import export, stored  # noqa: E402
from training.model import Model, Shape  # noqa: E402
from training.weights import initial_weights  # noqa: E402

TINY = NanoConfig(
    vocab_size=64, hidden_size=32, layer_types=(SLIDING, CSA, HCA), hash_layers=1, head_dim=16,
    rope_dim=8, q_lora_rank=16, o_lora_rank=8, window=128, expert_width=16,
)  # fmt: skip


def test_an_export_loads_in_transformers_and_predicts_the_same(tmp_path):
    weights = initial_weights(TINY, seed=7)
    export(weights, TINY, tmp_path)
    loaded = transformers.DeepseekV4ForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    rounded = {
        name: weight.float() if weight.is_floating_point() else weight
        for name, weight in ((name, stored(name, weight)) for name, weight in weights.items())
    }
    shape = Shape(prefix=128, rows=1, length=128)
    ids = torch.randint(0, TINY.vocab_size, (shape.tokens,), generator=torch.manual_seed(9))
    with torch.no_grad():
        hidden, _ = Model(TINY, compiled=False).hidden(rounded, ids, shape)
        ours = hidden @ rounded["lm_head.weight"].T
        assert (loaded(ids[None]).logits[0] - ours).abs().max() < 1e-4
    assert not list(tmp_path.glob("*.partial"))
