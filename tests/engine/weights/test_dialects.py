"""Projections and experts of every published layout stay quantised in memory, whatever config.json
says of them (that their logits are right is the subject of test_layouts.py); what is spoiled is
refused in one line."""

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.model.packed import Joined, Packed, has_packed, unpacked
from ds4_agent.engine.model.prefill import prefill
from ds4_agent.engine.weights.checkpoint import load_model

TOKENS = np.random.default_rng(3).integers(0, 97, 150).tolist()


def logits_of(model):
    return np.array(prefill(model, TOKENS, model.init_state(), chunk=100)[0])


def weights_of(directory):
    return load_model(directory, dtype=mx.float32)._parameters


def test_the_official_repository(wide, dialects, tmp_path):
    dialects.write_official(tmp_path / "official", *wide)
    weights = weights_of(tmp_path / "official")
    layer = weights.layers[1]
    assert layer.experts.gate_up.format == ("mxfp4", 4, 32)
    assert layer.experts.down.format == ("mxfp4", 4, 32)
    assert layer.experts.shared_gate_up.format == ("mxfp8", 8, 32)
    assert layer.attention.out_groups.format == ("mxfp8", 8, 32)
    # FP8 projections and the bf16 one of the indexer share an input.
    assert isinstance(layer.attention.inputs, Joined)
    assert isinstance(weights.layers[0].attention.inputs, Packed)
    assert not has_packed(layer.attention.pool)


def test_no_bit_of_an_official_weight_is_lost(wide, dialects, tmp_path):
    config, tensors = wide
    plain = dialects.write_official(tmp_path / "official", config, tensors)
    weights = load_model(tmp_path / "official", dtype=mx.float32)._parameters
    down, out = weights.layers[3].experts.down, weights.layers[3].attention.out
    for packed, expected in (
        (down, np.stack([plain[f"layers.3.ffn.experts.{e}.w2.weight"] for e in range(6)])),
        (out, plain["layers.3.attn.wo_b.weight"]),
    ):
        assert np.array_equal(np.array(unpacked(packed)), expected)


@pytest.mark.parametrize(
    "form",
    [("affine", bits, 32) for bits in (2, 3, 4, 5, 6, 8)]
    + [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)],
    ids=lambda form: f"{form[0]}-{form[1]}",
)
def test_mlx_modes(wide, dialects, tmp_path, form):
    """All matrices in one mode, embedding, head, router and compressor included."""
    dialects.write_mlx(tmp_path / "mlx", *wide, lambda path: form)
    weights = weights_of(tmp_path / "mlx")
    assert weights.embed.format == weights.head.format == form
    assert weights.layers[2].experts.gate_up.format == form


@pytest.mark.parametrize("prefix", ["", "language_model."])
@pytest.mark.parametrize("fused", [False, True])
def test_overrides_for_single_modules(wide, dialects, tmp_path, fused, prefix):
    """What config.json says is wrong throughout, and the tensors are believed."""
    dialects.write_mlx(
        tmp_path / "mlx", *wide, dialects.as_mixed, prefix=prefix, fused=fused, said=dialects.WRONG
    )
    weights = weights_of(tmp_path / "mlx")
    experts = weights.layers[1].experts
    # Gate and up of two formats cannot stand in one array.
    assert isinstance(experts.gate_up, Packed if fused else Joined)
    assert experts.down.bits == 3
    assert isinstance(weights.embed, mx.array)


def test_states_side_by_side_are_as_alone(wide, dialects, tmp_path):
    config, tensors = wide
    dialects.write_official(tmp_path / "official", config, tensors)
    model = load_model(tmp_path / "official", dtype=mx.float32)
    states = [prefill(model, TOKENS[:n], model.init_state())[1] for n in (20, 33)]
    together, _ = model.step_many([5, 6], states)
    alone = [model([token], state)[0] for token, state in zip([5, 6], states, strict=True)]
    assert np.array_equal(np.array(together), np.stack([np.array(row) for row in alone]))


def test_half_precision_streams(wide, dialects, tmp_path):
    """As on a GPU."""
    config, tensors = wide
    dialects.write_official(tmp_path / "official", config, tensors)
    exact = logits_of(load_model(tmp_path / "official", dtype=mx.float32))
    rounded = logits_of(load_model(tmp_path / "official", dtype=mx.bfloat16))
    assert 0 < np.abs(exact - rounded).max() < 1


# What cannot be opened: one line that names the tensor.


def refusal(directory):
    with pytest.raises(ModelFormatError) as caught:
        load_model(directory)
    line = str(caught.value)
    assert "\n" not in line
    return line


def spoiled(directory, change):
    """The one-file checkpoint with its tensors changed."""
    path = directory / "model.safetensors"
    tensors = mx.load(str(path))
    mx.eval(list(tensors.values()))
    change(tensors)
    mx.save_safetensors(str(path), tensors)
    return directory


NAME = "model.layers.1.attn.wq_b"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{NAME}.scales"), "attn.wq_b.scales is missing"),
        (lambda t: t.pop(f"{NAME}.biases"), "in a format of MLX; give for instance deepseek-ai/"),
        (lambda t: t.update({f"{NAME}.scales": t[f"{NAME}.scales"] * float("nan")}), "no numbers"),
        (lambda t: t.update({f"{NAME}.weight": t[f"{NAME}.weight"][:-1]}), "has shape [255, 16]"),
        (lambda t: t.update({f"{NAME}.scales": t[f"{NAME}.scales"][:-1]}), "has shape [255, 2]"),
        (lambda t: t.update({f"{NAME}.weight": t[f"{NAME}.weight"][:, :-1]}), "in a format of MLX"),
        (lambda t: t.update({f"{NAME}.tq_packed": mx.zeros(3)}), "codebook format"),
    ],
)
def test_a_spoiled_mlx_checkpoint(wide, dialects, tmp_path, change, said):
    config, tensors = wide
    dialects.write_mlx(tmp_path / "mlx", config, tensors, lambda path: ("affine", 8, 32))
    line = refusal(spoiled(tmp_path / "mlx", change))
    assert said in line
    assert "model.safetensors" in line


def test_a_weight_that_is_no_number(wide, dialects, tmp_path):
    config, tensors = wide
    tensors = {**tensors, "norm.weight": np.full_like(tensors["norm.weight"], np.nan)}
    dialects.write_mlx(tmp_path / "mlx", config, tensors, lambda path: None)
    assert "norm.weight holds values that are no numbers; download it again" in refusal(
        tmp_path / "mlx"
    )
