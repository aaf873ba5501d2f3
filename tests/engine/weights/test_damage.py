"""Damaged weights of published layouts: what is no number, what is missing, shards that do not
belong together. Each is found before the model is there, in one line that names file and tensor."""

import json

import numpy as np
import pytest

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.weights.checkpoint import load_model
from ds4_agent.engine.weights.tensors import TensorFiles

INDEX = "model.safetensors.index.json"


def refusal(directory):
    with pytest.raises(ModelFormatError) as caught:
        load_model(directory)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture
def written(dialects, small, tmp_path):
    """`written(layout)`: its directory."""

    def write(layout):
        dialects.written(small, layout, 7, tmp_path / layout)
        return tmp_path / layout

    return write


def overwritten(directory, name, content):
    """The last bytes of a tensor, exchanged. Gives its file."""
    entry = TensorFiles(directory).entries[name]
    size = {"BF16": 2, "F32": 4}.get(entry.dtype, 1) * int(np.prod(entry.shape))
    with entry.file.open("r+b") as file:
        file.seek(entry.start + size - len(content))
        file.write(content)
    return entry.file


BF16_NAN, FP32_NAN, FP32_INFINITY = b"\xc0\x7f", b"\0\0\xc0\x7f", b"\0\0\x80\xff"


@pytest.mark.parametrize(
    ("layout", "name", "content"),
    [
        ("0731", "embed.weight", BF16_NAN),
        ("0731", "layers.3.attn_norm.weight", BF16_NAN),
        ("0731", "layers.3.ffn.gate.weight", BF16_NAN),
        ("0731", "layers.3.ffn.gate.bias", FP32_NAN),
        ("0731", "layers.1.hc_attn_fn", FP32_INFINITY),
        ("0731", "layers.2.attn.attn_sink", FP32_NAN),
        ("0731", "layers.2.attn.compressor.ape", FP32_INFINITY),
        ("0731", "layers.2.attn.wo_b.weight", b"\x7f"),  # e4m3's own
        ("0731", "layers.2.attn.wo_b.weight", b"\xff"),
        ("0731", "layers.2.attn.wo_b.scale", b"\xff"),  # ue8m0's
        ("0731", "layers.2.ffn.experts.4.w3.scale", b"\xff"),
        ("base", "layers.2.ffn.experts.4.w3.weight", b"\x7f"),
        ("transformers", "layers.2.ffn.experts.down_proj.weight", BF16_NAN),
        ("affine-2", "layers.2.ffn.experts.down_proj.scales", BF16_NAN),
        ("affine-2", "layers.2.ffn.experts.down_proj.biases", BF16_NAN),
        ("mxfp4-4", "layers.2.ffn.experts.up_proj.scales", b"\xff"),
        ("mxfp8-8", "head.scales", b"\xff"),
        ("nvfp4-4", "layers.0.attn.wq_a.scales", b"\x7f"),
    ],
)
def test_a_weight_that_is_no_number(written, layout, name, content):
    directory = written(layout)
    path = overwritten(directory, name, content)
    line = refusal(directory)
    assert str(path) in line
    assert name.removesuffix(".scale").removesuffix(".weight") in line
    assert "holds values that are no numbers; download it again" in line


@pytest.mark.parametrize(
    ("layout", "name", "stem"),
    [
        ("0731", "layers.1.ffn.experts.2.w2.scale", "ffn.experts.2.w2"),
        ("0731", "layers.1.attn.indexer.wq_b.scale", "attn.indexer.wq_b"),
        ("mxfp4-4", "model.layers.1.ffn.switch_mlp.down_proj.scales", "experts.down_proj"),
        ("nvfp4-4", "lm_head.scales", "head"),
    ],
)
def test_a_missing_scale(written, layout, name, stem):
    directory = written(layout)
    renamed(directory, name, "x" * len(name))
    line = refusal(directory)
    assert f"{stem}.{name.rpartition('.')[2]} is missing" in line
    assert "download it again" in line


def renamed(directory, name, other):
    """A tensor by a name of the same length in the headers: as good as not there."""
    for path in directory.glob("*.safetensors"):
        content = path.read_bytes()
        path.write_bytes(content.replace(json.dumps(name).encode(), json.dumps(other).encode()))


def index_of(directory):
    return json.loads((directory / INDEX).read_text())


def test_an_index_that_names_the_wrong_shards(written):
    """The headers of the shards are believed."""
    directory = written("0731")
    index = index_of(directory)
    names, shards = zip(*index["weight_map"].items(), strict=True)
    index["weight_map"] = dict(zip(names, (*shards[1:], shards[0]), strict=True))
    (directory / INDEX).write_text(json.dumps(index))
    load_model(directory)


def test_an_index_that_names_a_tensor_no_shard_has(written):
    directory = written("0731")
    name = "layers.2.attn.wq_b.weight"
    assert name in index_of(directory)["weight_map"]
    renamed(directory, name, "x" * len(name))
    assert f"tensor {name} is missing; the download is incomplete" in refusal(directory)


def test_a_shard_of_another_checkpoint(written, dialects, small, tmp_path):
    """A file of a model of other sizes, by the name of the right one."""
    directory = written("0731")
    broad = dialects.official.official_config({**small.MODELS["mixed"], **dialects.BROAD})
    weights = small.weights({**small.MODELS["mixed"], **dialects.BROAD}, 7)
    dialects.write_official(tmp_path / "broad", broad, dialects.official.official_tensors(weights))
    shard = "model-00002-of-00003.safetensors"
    (directory / shard).write_bytes((tmp_path / "broad" / shard).read_bytes())
    line = refusal(directory)
    assert str(directory / shard) in line
    assert "the two belong to different models" in line


def test_the_shards_of_two_downloads(written):
    """Without an index nobody could say which of them count."""
    directory = written("0731")
    (directory / INDEX).unlink()
    load_model(directory)
    first = directory / "model-00001-of-00003.safetensors"
    (directory / "model-00001-of-00046.safetensors").write_bytes(first.read_bytes())
    line = refusal(directory)
    assert str(first) in line
    assert "both hold" in line
    assert "remove the files of one, or get its model.safetensors.index.json" in line
