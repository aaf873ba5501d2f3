"""Loading a checkpoint: every dialect of the same weights is the same model, and what is no such
model ends in one line that names the file or tensor and what to do."""

import json
import os

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from ds4_agent.engine.errors import EngineError, ModelFormatError
from ds4_agent.engine.model.prefill import prefill
from ds4_agent.engine.weights.checkpoint import fingerprint, load_model, read_config
from ds4_agent.engine.weights.plan import stored_sizes
from ds4_agent.engine.weights.tensors import TensorFiles

FILE = "model.safetensors"
WQ_A = "model.layers.1.self_attn.q_a_proj.weight"


def logits_of(directory, **options):
    model = load_model(directory, **{"dtype": mx.float32, **options})
    tokens = np.random.default_rng(3).integers(0, 97, 150).tolist()
    return np.array(prefill(model, tokens, model.init_state(), chunk=100)[0])


def refusal(directory, load=load_model):
    """The one line a user reads."""
    with pytest.raises(ModelFormatError) as caught:
        load(directory)
    line = str(caught.value)
    assert isinstance(caught.value, EngineError)
    assert "\n" not in line
    return line


# The same model, however it is stored.


def test_official_names_give_the_same_logits(checkpoint, official):
    assert np.array_equal(logits_of(checkpoint.write()), logits_of(official.write()))


def test_the_two_configs_say_the_same(checkpoint, official):
    ours, theirs = read_config(checkpoint.write()), read_config(official.write())

    assert ours == theirs


def test_shards_give_the_same_logits(checkpoint):
    whole = logits_of(checkpoint.write())
    assert np.array_equal(logits_of(checkpoint.write_shards(3)), whole)


def test_fp16_of_the_same_values_gives_the_same_logits(checkpoint):
    """The weights are such that fp16 holds them."""
    expected = logits_of(checkpoint.write())
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype == np.float32:
            checkpoint.tensors[name] = tensor.astype(np.float16)

    assert np.array_equal(logits_of(checkpoint.write()), expected)


def test_bf16_is_read(checkpoint):
    directory = checkpoint.write()
    floats = {
        name: mx.array(tensor).astype(mx.bfloat16) if tensor.dtype == np.float32 else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    rounded = {
        name: np.array(value.astype(mx.float32)) if isinstance(value, mx.array) else value
        for name, value in floats.items()
    }
    mx.save_safetensors(str(directory / FILE), {n: mx.array(v) for n, v in floats.items()})
    as_bf16 = logits_of(directory)
    checkpoint.tensors = rounded

    assert np.array_equal(as_bf16, logits_of(checkpoint.write()))


def test_tied_embeddings_need_no_head(checkpoint):
    checkpoint.tensors["lm_head.weight"] = checkpoint.tensors["model.embed_tokens.weight"]
    expected = logits_of(checkpoint.write())
    del checkpoint.tensors["lm_head.weight"]
    checkpoint.config["tie_word_embeddings"] = True

    assert np.array_equal(logits_of(checkpoint.write()), expected)


def test_tensors_of_draft_stages_are_passed_over(official):
    expected = logits_of(official.write())
    official.tensors["mtp.0.norm.weight"] = np.ones(48, dtype=np.float32)

    assert np.array_equal(logits_of(official.write()), expected)


def test_loading_is_reported_to_its_end(checkpoint):
    seen = []
    load_model(checkpoint.write(), on_load=seen.append)

    assert [(said.done, said.total) for said in seen] == [(done, 5) for done in range(1, 6)]
    read = [said.bytes_done for said in seen]
    assert read == sorted(set(read))  # it grows with every layer
    stored = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    assert {said.bytes_total for said in seen} == {read[-1]} == {stored}


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_loading_takes_the_weights_and_one_layer(write_tiny, tmp_path, dtype):
    """A model that just fits can be loaded, too: no more than one layer is there twice."""
    sizes = {"hidden_size": 256, "moe_intermediate_size": 256, "n_routed_experts": 16}
    directory = write_tiny(tmp_path / "model", **sizes)
    largest = max(stored_sizes(TensorFiles(directory).entries).values())
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()

    model = load_model(directory, dtype=dtype)
    assert mx.get_peak_memory() <= mx.get_active_memory() + largest
    assert mx.get_active_memory() - before > 2 * largest  # so that this says something
    del model


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_streams_stay_near(checkpoint, dtype):
    directory = checkpoint.write()
    difference = np.abs(logits_of(directory) - logits_of(directory, dtype=dtype)).max()

    assert 0 < difference < 1


# What is no model directory.


def test_a_missing_directory(tmp_path):
    for load in (load_model, read_config, fingerprint):
        line = refusal(tmp_path / "nowhere", load)
        assert str(tmp_path / "nowhere") in line
        assert "check the path" in line


def test_a_file_in_place_of_a_directory(checkpoint):
    assert "check the path" in refusal(checkpoint.write() / FILE)


def test_no_config(checkpoint):
    directory = checkpoint.write()
    (directory / "config.json").unlink()
    line = refusal(directory)
    assert f"{directory} has no config.json" in line


@pytest.mark.parametrize("text", ["{", "", "[1]", '"text"', "\x00\x01"])
def test_a_config_that_is_no_json_object(checkpoint, text):
    directory = checkpoint.write()
    checkpoint.write_config(text)
    line = refusal(directory)
    assert str(directory / "config.json") in line
    assert "download it again" in line


def test_a_config_that_is_no_text(checkpoint):
    directory = checkpoint.write()
    (directory / "config.json").write_bytes(b"\xff\xfe{}")
    assert str(directory / "config.json") in refusal(directory)


@pytest.mark.parametrize("model_type", ["llama", "deepseek_v3", None])
def test_another_model(checkpoint, model_type):
    checkpoint.config["model_type"] = model_type
    line = refusal(checkpoint.write())
    assert f"model_type is {model_type!r}" in line
    assert "give the directory of a DeepSeek V4 Flash model" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", None),
        ("hidden_size", "48"),
        ("num_hidden_layers", 0),
        ("head_dim", 31),
        ("o_groups", 3),
        ("num_experts_per_tok", 7),
        ("layer_types", ["sliding_attention"]),
        ("layer_types", ["full_attention"] * 4),
        ("mlp_layer_types", ["dense"] * 4),
        ("scoring_func", "softmax"),
        ("hidden_act", "gelu"),
        ("rope_parameters", {"rope_type": "linear", "factor": 2}),
        ("rope_scaling", {"type": "yarn", "factor": 16}),
        ("rms_norm_eps", -1),
        ("compress_rates", {"compressed_sparse_attention": 3}),
        ("compress_rates", {"compressed_sparse_attention": 0}),
        ("layer_types", 4),
        ("rope_parameters", 1),
    ],
)
def test_a_config_with_a_wrong_value(checkpoint, key, value):
    checkpoint.config[key] = value
    if key == "rope_scaling":
        checkpoint.config.pop("rope_parameters", None)
    line = refusal(checkpoint.write())
    assert line.startswith("config.json: ")


def test_no_weights(checkpoint):
    directory = checkpoint.write()
    (directory / FILE).unlink()
    for load in (load_model, fingerprint):
        line = refusal(directory, load)
        assert f"{directory} holds no *.safetensors file" in line


def test_weights_of_a_foreign_format(checkpoint):
    directory = checkpoint.write()
    (directory / FILE).rename(directory / "model.gguf")
    line = refusal(directory)
    assert str(directory / "model.gguf") in line
    assert "give a safetensors checkpoint" in line


@pytest.mark.parametrize("left", [0, 5, 8, 100, -1, -4000])
def test_truncated_weights(checkpoint, left):
    path = checkpoint.write() / FILE
    size = path.stat().st_size
    os.truncate(path, left if left >= 0 else size + left)
    line = refusal(path.parent)
    assert str(path) in line
    assert "download it again" in line


@pytest.mark.parametrize("content", [b"not a safetensors file, but long enough", b"\0" * 64])
def test_weights_that_are_no_safetensors(checkpoint, content):
    path = checkpoint.write() / FILE
    path.write_bytes(content)
    assert str(path) in refusal(path.parent)


@pytest.mark.parametrize("header", ["[]", '{"a": 1}', '{"a": {"dtype": "F32", "shape": [2]}}'])
def test_a_malformed_header(checkpoint, header):
    path = checkpoint.write() / FILE
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0" * 64)
    line = refusal(path.parent)
    assert str(path) in line


def test_a_missing_shard(checkpoint):
    directory = checkpoint.write_shards(3)
    (directory / "model-00002.safetensors").unlink()
    line = refusal(directory)
    assert str(directory / "model-00002.safetensors") in line
    assert "download it again" in line


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": []}', '{"weight_map": {"a": "../b"}}'])
def test_a_damaged_index(checkpoint, text):
    directory = checkpoint.write_shards(2)
    (directory / f"{FILE}.index.json").write_text(text, encoding="utf-8")
    line = refusal(directory)
    assert str(directory) in line
    assert "download it again" in line


def test_an_index_that_leaves_a_shard_out(checkpoint):
    directory = checkpoint.write_shards(3)
    index = directory / f"{FILE}.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {
        name: shard for name, shard in content["weight_map"].items() if "00002" not in shard
    }
    index.write_text(json.dumps(content))
    line = refusal(directory)
    assert str(directory) in line
    assert "is missing; the download is incomplete" in line


def test_a_truncated_shard(checkpoint):
    directory = checkpoint.write_shards(3)
    path = directory / "model-00002.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    line = refusal(directory)
    assert f"{path} is truncated or damaged" in line


# Tensors that do not fit.


@pytest.mark.parametrize(
    ("name", "official_name"),
    [
        (WQ_A, "layers.1.attn.wq_a.weight"),
        ("lm_head.weight", "head.weight"),
        ("model.layers.0.mlp.gate.tid2eid", "layers.0.ffn.gate.tid2eid"),
    ],
)
def test_a_missing_tensor(checkpoint, name, official_name):
    del checkpoint.tensors[name]
    directory = checkpoint.write()
    line = refusal(directory)
    assert str(directory) in line
    assert "the download is incomplete" in line
    assert f"tensor {official_name} is missing" in line


def test_a_missing_expert(official):
    del official.tensors["layers.2.ffn.experts.5.w2.weight"]
    assert "layers.2.ffn.experts.5.w2.weight is missing" in refusal(official.write())


def test_a_wrong_shape(checkpoint):
    checkpoint.tensors[WQ_A] = np.zeros((24, 47), dtype=np.float32)
    directory = checkpoint.write()
    line = refusal(directory)
    assert f"{directory / FILE}: {WQ_A} has shape [24, 47]" in line
    assert "config.json asks for [24, 48]" in line


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.bool_])
def test_an_unsupported_dtype(checkpoint, dtype):
    checkpoint.tensors[WQ_A] = np.zeros((24, 48), dtype=dtype)
    directory = checkpoint.write()
    line = refusal(directory)
    assert str(directory / FILE) in line
    assert "layers.1.attn.wq_a.weight is" in line
    assert "give a bf16, fp16 or fp32 checkpoint" in line


def test_a_dtype_that_mlx_does_not_read(checkpoint):
    checkpoint.tensors[WQ_A] = np.zeros((24, 48), dtype=np.float64)
    directory = checkpoint.write()
    line = refusal(directory)
    assert str(directory / FILE) in line
    assert "F64" in line
    assert "give a bf16, fp16 or fp32 checkpoint" in line


def test_a_table_of_experts_that_is_no_table(checkpoint):
    name = "model.layers.0.mlp.gate.tid2eid"
    checkpoint.tensors[name] = checkpoint.tensors[name].astype(np.float32)
    assert "not a table of integers" in refusal(checkpoint.write())


@pytest.mark.parametrize("expert", [-1, 6])
def test_a_table_that_names_no_expert(checkpoint, expert):
    table = checkpoint.tensors["model.layers.0.mlp.gate.tid2eid"].copy()
    table[50, 1] = expert
    checkpoint.tensors["model.layers.0.mlp.gate.tid2eid"] = table
    assert "names an expert beyond the 6" in refusal(checkpoint.write())


def as_dtype(path, name, dtype):
    """Say in the header that tensor `name` is of `dtype`, which numpy does not have."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[name]["dtype"] = dtype
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize("layer", [0, 1])
def test_fp8_weights_as_published(official, layer):
    """FP8 values and their scales, as the official checkpoint has them."""
    directory = published_fp8(official, layer, code=0x38, scale=128)
    name = f"layers.{layer}.attn.wq_a.weight"
    loaded = TensorFiles(directory).floats(name, (24, 48), mx.float32)
    assert np.array_equal(np.array(loaded), np.full((24, 48), 2, dtype=np.float32))
    load_model(directory)


def test_fp4_weights_as_published(tmp_path):
    """Two values a byte, the low half first, and a scale for 32 of them."""
    tensors = {
        "layers.0.ffn.experts.0.w1.weight": np.full((3, 32), 0x21, dtype=np.int8),
        "layers.0.ffn.experts.0.w1.scale": np.full((3, 2), 128, dtype=np.uint8),
    }
    save_file(tensors, tmp_path / FILE)
    as_dtype(tmp_path / FILE, "layers.0.ffn.experts.0.w1.scale", "F8_E8M0")
    name = "layers.0.ffn.experts.0.w1.weight"
    loaded = TensorFiles(tmp_path).floats(name, (3, 64), mx.float32)
    assert np.array_equal(np.array(loaded), np.tile(np.float32([1, 2]), (3, 32)))


def test_fp8_weights_that_are_no_numbers(official):
    line = refusal(published_fp8(official, 0, code=0x7F, scale=127))
    assert "layers.0.attn.wq_a.weight holds values that are no numbers" in line


def test_fp8_weights_without_their_scale(official):
    line = refusal(published_fp8(official, 0, code=0x38, scale=None))
    assert "layers.0.attn.wq_a.scale is missing" in line


def published_fp8(official, layer, *, code, scale):
    name = f"layers.{layer}.attn.wq_a"
    official.tensors[f"{name}.weight"] = np.full((24, 48), code, dtype=np.uint8)
    if scale is not None:
        official.tensors[f"{name}.scale"] = np.full((1, 1), scale, dtype=np.uint8)
    official.config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3"}
    directory = official.write()
    as_dtype(directory / FILE, f"{name}.weight", "F8_E4M3")
    if scale is not None:
        as_dtype(directory / FILE, f"{name}.scale", "F8_E8M0")
    return directory


# The fingerprint.


def test_the_fingerprint_is_stable(checkpoint, tmp_path):
    first = fingerprint(checkpoint.write())
    assert len(first) == 64
    assert int(first, 16)
    checkpoint.directory = tmp_path / "elsewhere"

    assert fingerprint(checkpoint.write()) == first


def test_the_fingerprint_changes_with_one_bit_of_a_weight(checkpoint):
    path = checkpoint.write() / FILE
    before = fingerprint(path.parent)
    content = bytearray(path.read_bytes())
    content[-1001] ^= 1
    path.write_bytes(content)

    assert fingerprint(path.parent) != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_the_fingerprint_changes_with_config_and_tokenizer(checkpoint, name):
    directory = checkpoint.write()
    (directory / "tokenizer.json").write_text("{}")
    before = fingerprint(directory)
    (directory / name).write_text((directory / name).read_text() + " ")

    assert fingerprint(directory) != before


def test_other_files_do_not_change_the_fingerprint(checkpoint):
    directory = checkpoint.write()
    before = fingerprint(directory)
    (directory / "README.md").write_text("notes")

    assert fingerprint(directory) == before
