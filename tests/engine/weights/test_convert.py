"""What a conversion makes: `native` is the source bit for bit in every layout, the other recipes
are the source with just the weights rounded that they say, each where it belongs."""

import json
import re

import mlx.core as mx
import numpy as np
import pytest
from safetensors import safe_open

from ds4_agent.engine.model.prefill import prefill
from ds4_agent.engine.weights.calibration import Calibration
from ds4_agent.engine.weights.checkpoint import load_model, read_config
from ds4_agent.engine.weights.convert import convert
from ds4_agent.engine.weights.importance import Importance
from ds4_agent.engine.weights.manifest import read_manifest, record_of
from ds4_agent.engine.weights.names import mlx_name, official_name
from ds4_agent.engine.weights.packed_formats import PackedFormat
from ds4_agent.engine.weights.quantise import quantised
from ds4_agent.engine.weights.recipe import RECIPES, Recipe, target_format
from ds4_agent.engine.weights.repack import _of_rows
from ds4_agent.engine.weights.tensors import TensorFiles

TOKENS = np.random.default_rng(3).integers(0, 97, 150).tolist()
NATIVE = RECIPES["native"]
AFFINE = PackedFormat("affine", 8, 32)
EXPERT = re.compile(r"(layers\.\d+\.ffn\.experts\.)(\d+)\.(w\d)\.weight")


def logits_of(directory):
    model = load_model(directory, dtype=mx.float32)
    return np.array(prefill(model, TOKENS, model.init_state(), chunk=100)[0])


def value_of(files, name, like):
    """The matrix of an official name in a converted checkpoint, in fp32."""
    expert = EXPERT.fullmatch(name)
    if expert is None:
        return np.array(files.floats(name, like.shape, mx.float32))
    prefix, number, matrix = expert[1], int(expert[2]), expert[3]
    rows, columns = like.shape
    if matrix == "w2":
        source, row, parts = f"{prefix}down_proj.weight", number * rows, 1
    elif f"{prefix}gate_up_proj.weight" in files:
        source, row, parts = f"{prefix}gate_up_proj.weight", 2 * number * rows, 2
        row += rows * (matrix == "w3")
    else:
        part = {"w1": "gate_proj", "w3": "up_proj"}[matrix]
        source, row, parts = f"{prefix}{part}.weight", number * rows, 1
    experts = files.entries[source].shape[0]
    whole = files.floats(source, (experts * parts * rows, columns), mx.float32)
    return np.array(whole)[row : row + rows]


def assert_same_values(directory, plain):
    files = TensorFiles(directory)
    for name, value in plain.items():
        if not name.endswith("tid2eid"):
            assert np.array_equal(value_of(files, name, value), value), name


# native: not a bit changes.


@pytest.fixture
def published(wide, dialects, tmp_path):
    """(directory, its values unpacked) of DeepSeek's own layout."""
    config, tensors = wide
    drafts = ("mtp.0.e_proj.weight", "mtp.0.hc_head_fn")
    plain = dialects.write_official(tmp_path / "official", config, tensors, drafts=drafts)
    return tmp_path / "official", plain


def test_the_official_layout_loses_no_bit(published, tmp_path):
    source, plain = published
    made = convert(source, tmp_path / "made", NATIVE)
    assert made.drafts == 2
    assert_same_values(tmp_path / "made", plain)
    assert np.array_equal(logits_of(tmp_path / "made"), logits_of(source))


def test_it_is_in_modes_of_mlx(published, tmp_path):
    source, _ = published
    convert(source, tmp_path / "made", NATIVE)
    files, config = TensorFiles(tmp_path / "made"), read_config(tmp_path / "made")
    hidden, wide = config.hidden_size, config.moe_intermediate_size
    down = files.form("layers.1.ffn.experts.down_proj.weight", (6, hidden, wide))
    assert down == PackedFormat("mxfp4", 4, 32)
    wq_a = files.form("layers.1.attn.wq_a.weight", (config.q_lora_rank, hidden))
    assert wq_a == PackedFormat("mxfp8", 8, 32)
    # The other engines' spelling of it, and what had scales of its own is told no more.
    keys = json.loads((tmp_path / "made" / "config.json").read_text())
    assert keys["quantization"] == keys["quantization_config"]
    listed = {path: form for path, form in keys["quantization"].items() if isinstance(form, dict)}
    default = {key: keys["quantization"][key] for key in ("mode", "bits", "group_size")}
    experts = listed.get("model.layers.1.ffn.switch_mlp.down_proj", default)
    assert experts == {"mode": "mxfp4", "bits": 4, "group_size": 32}


def test_transformers_naming(checkpoint, tmp_path):
    source = checkpoint.write()
    convert(source, tmp_path / "made", NATIVE)
    assert np.array_equal(logits_of(tmp_path / "made"), logits_of(source))
    assert "quantization" not in json.loads((tmp_path / "made" / "config.json").read_text())


def test_shards_and_an_index(checkpoint, tmp_path):
    source = checkpoint.write_shards(3)
    convert(source, tmp_path / "made", NATIVE)
    assert np.array_equal(logits_of(tmp_path / "made"), logits_of(source))


@pytest.mark.parametrize("bits", [16, 32])
def test_half_precision_stays_half(checkpoint, tmp_path, bits):
    source = checkpoint.write()
    dtype = {16: mx.bfloat16, 32: mx.float32}[bits]
    stored = {
        name: mx.array(value).astype(dtype) if value.dtype == np.float32 else mx.array(value)
        for name, value in checkpoint.tensors.items()
    }
    mx.save_safetensors(str(source / "model.safetensors"), stored)
    made = convert(source, tmp_path / "made", NATIVE)
    assert np.array_equal(logits_of(tmp_path / "made"), logits_of(source))
    values = sum(value.size for value in checkpoint.tensors.values())
    assert made.bytes == pytest.approx(values * bits / 8, rel=0.1)


@pytest.mark.parametrize("form", [("affine", 3, 32), ("mxfp4", 4, 32), ("nvfp4", 4, 16)])
@pytest.mark.parametrize("fused", [False, True])
def test_dialects_of_mlx(wide, dialects, tmp_path, form, fused):
    config, tensors = wide
    source = tmp_path / "mlx"

    def choose(path):
        return None if "compressor" in path else form

    dialects.write_mlx(source, config, tensors, choose, fused=fused, prefix="language_model.")
    convert(source, tmp_path / "made", NATIVE)
    assert np.array_equal(logits_of(tmp_path / "made"), logits_of(source))


def test_gate_and_up_in_two_formats_stay_apart(wide, dialects, tmp_path):
    config, tensors = wide

    def choose(path):
        bits = 4 if path.endswith("gate_proj") else 6
        return ("affine", bits, 32) if "switch_mlp" in path else None

    dialects.write_mlx(tmp_path / "mlx", config, tensors, choose)
    convert(tmp_path / "mlx", tmp_path / "made", NATIVE)
    assert "layers.0.ffn.experts.up_proj.weight" in TensorFiles(tmp_path / "made")
    assert np.array_equal(logits_of(tmp_path / "made"), logits_of(tmp_path / "mlx"))


def test_a_conversion_is_converted_again_to_the_same(published, tmp_path):
    source, _ = published
    convert(source, tmp_path / "one", NATIVE)
    convert(tmp_path / "one", tmp_path / "two", NATIVE)
    shards = sorted(path.name for path in (tmp_path / "one").glob("*.safetensors"))
    for name in (*shards, "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# The recipes that round.


def expected_values(plain, recipe, stored):
    """Each value as the recipe rounds it, by the quantiser itself, matrix by matrix."""
    rounded = {}
    for name, value in plain.items():
        rounded[name] = value
        if value.ndim < 2 or not name.endswith(".weight") or value.shape[-1] < 32:
            continue
        kept = stored(name)
        target = target_format(recipe, name, 4, value.shape[-1], kept)
        if target == kept:
            continue
        made = quantised(mx.array(value), target)
        stored_as = [part.astype(mx.bfloat16) for part in (made.scales, made.biases)]
        scales, biases = (part.astype(mx.float32) for part in stored_as)
        options = {"mode": target.mode, "bits": target.bits, "group_size": target.group_size}
        back = mx.dequantize(made.codes, scales, biases, dtype=mx.float32, **options)
        rounded[name] = np.array(back)
    return rounded


def official_form(dialects):
    def stored(name):
        if dialects.FP8.search(name):
            return PackedFormat("mxfp8", 8, 32)
        return PackedFormat("mxfp4", 4, 32) if dialects.EXPERT.search(name) else None

    return stored


@pytest.mark.parametrize("recipe", ["q4", "q3", "q2", "q2-96"])
def test_each_weight_is_rounded_as_the_recipe_says(published, dialects, tmp_path, recipe):
    source, plain = published
    made = tmp_path / "made"
    convert(source, made, RECIPES[recipe])
    expected = expected_values(plain, RECIPES[recipe], official_form(dialects))
    assert_same_values(made, expected)
    changed = {n for n, value in plain.items() if not np.array_equal(expected[n], value)}
    untouched = re.compile(r"compressor|indexer|ffn\.gate\.|hc_|norm|attn_sink|tid2eid")
    assert not {name for name in changed if untouched.search(name)}
    assert {"embed.weight", "head.weight", "layers.2.attn.wo_a.weight"} <= changed
    assert ("layers.1.ffn.experts.0.w1.weight" in changed) == (recipe != "q4")
    assert ("layers.3.ffn.experts.0.w1.weight" in changed) == (recipe == "q2-96")


def test_logits_come_nearer_with_each_bit(published, tmp_path):
    """Tiny random models are more sensitive than trained ones: the order is what can be held."""
    source, _ = published
    exact = logits_of(source)
    errors = []
    for recipe in ("q4", "q3", "q2"):
        convert(source, tmp_path / recipe, RECIPES[recipe])
        errors.append(np.abs(logits_of(tmp_path / recipe) - exact).mean() / np.abs(exact).mean())
    assert 0 < errors[0] < errors[1] < errors[2] < 1
    assert errors[0] < 0.1


def test_unquantised_experts_get_the_recipes_bits(checkpoint, wide, tmp_path):
    config, tensors = wide
    checkpoint.config, checkpoint.tensors = config, tensors
    convert(checkpoint.write(), tmp_path / "made", RECIPES["q2"])
    files = TensorFiles(tmp_path / "made")
    forms = {
        layer: files.form(f"layers.{layer}.ffn.experts.down_proj.weight", (6, 160, 96))
        for layer in range(4)
    }
    # 96 columns are no whole groups of 64.
    edge, middle = PackedFormat("affine", 4, 32), PackedFormat("affine", 2, 32)
    assert forms == {0: edge, 1: middle, 2: middle, 3: edge}


def test_what_has_as_few_bits_already_stays(wide, dialects, tmp_path):
    config, tensors = wide
    dialects.write_mlx(tmp_path / "mlx", config, tensors, lambda path: ("affine", 3, 32))
    convert(tmp_path / "mlx", tmp_path / "made", RECIPES["q4"])
    assert np.array_equal(logits_of(tmp_path / "made"), logits_of(tmp_path / "mlx"))


def test_importance_reaches_the_rounding_of_its_matrix(checkpoint, wide, tmp_path, monkeypatch):
    """That of each expert, for what is rounded and nothing else."""
    checkpoint.config, checkpoint.tensors = wide
    source = checkpoint.write()
    config, given = read_config(source), []
    counts = {
        "gate_up_proj": (config.hidden_size, 10),
        "down_proj": (config.moe_intermediate_size, 100),
    }
    means = {
        f"layers.{layer}.ffn.experts.{name}.weight": np.repeat(
            1000.0 * layer + base + np.arange(6.0, dtype=np.float32)[:, None], k, axis=1
        ).astype(np.float32)
        for layer in (1, 2)
        for name, (k, base) in counts.items()
    }
    importance = Importance(means, {name: np.ones(6, np.int64) for name in means})

    def spy(matrix, target, importance=None):
        assert importance.shape == (1, matrix.shape[-1])
        given.append(importance[0, 0].item())
        return quantised(matrix, target)

    monkeypatch.setattr("ds4_agent.engine.weights.repack.quantised", spy)
    calibration = Calibration("it", "digest", lambda _source, _follow: importance)
    convert(source, tmp_path / "made", Recipe("x", experts=AFFINE), calibration=calibration)
    assert given == [
        1000.0 * layer + base + expert
        for layer in (1, 2)
        for base, matrices in ((10, 2), (100, 1))
        for expert in range(6)
        for _ in range(matrices)
    ]


def test_groups_of_rows_keep_their_importance_in_pieces():
    """A large matrix is rounded some rows at a time."""
    by_row = mx.arange(10).reshape(10, 1)
    assert np.array(_of_rows(by_row, 10, 4, 3)).ravel().tolist() == [4, 5, 6]
    for shared in (mx.ones((1, 7)), mx.ones((10,)), None):
        assert _of_rows(shared, 10, 4, 3) is shared


# The directory.


def test_the_manifest_says_what_there_is(published, tmp_path):
    source, _ = published
    (source / "tokenizer.json").write_text('{"a": 1}')
    made = tmp_path / "made"
    convert(source, made, RECIPES["q2"])
    manifest = read_manifest(made)
    present = {path.name for path in made.iterdir()} - {"ds4-manifest.json"}
    assert set(manifest.files) == present
    assert {"config.json", "tokenizer.json", "model-00005-of-00005.safetensors"} <= present
    for name, record in manifest.files.items():
        assert record_of(made / name) == record
    assert (made / "tokenizer.json").read_text() == '{"a": 1}'


def test_other_readers_open_the_files(published, tmp_path):
    """The safetensors library itself, which wants offsets without a gap; and MLX."""
    source, _ = published
    made = tmp_path / "made"
    convert(source, made, RECIPES["q2"])
    index = json.loads((made / "model.safetensors.index.json").read_text())["weight_map"]
    seen = {}
    for path in made.glob("*.safetensors"):
        ours = mx.load(str(path))
        with safe_open(path, "numpy") as theirs:
            assert set(theirs.keys()) == set(ours)
            seen |= dict.fromkeys(ours, path.name)
    assert seen == index


def test_every_name_leads_back(wide):
    _, tensors = wide
    names = [*tensors, "layers.3.ffn.experts.gate_up_proj.weight", "head.scales", "embed.biases"]
    for name in names:
        assert official_name(mlx_name(name)) == official_name(name) == name
