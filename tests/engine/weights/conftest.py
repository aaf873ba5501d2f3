"""A tiny checkpoint directory that loads, to be spoiled, and the official names of its tensors."""

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "tiny.py"
FILE = "model.safetensors"

# The official name of each tensor of transformers' state_dict, written from the published list.
WHOLE = {
    "model.embed_tokens.weight": "embed.weight",
    "model.norm.weight": "norm.weight",
    "model.hc_head.hc_fn": "hc_head_fn",
    "model.hc_head.hc_base": "hc_head_base",
    "model.hc_head.hc_scale": "hc_head_scale",
    "lm_head.weight": "head.weight",
}
IN_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "attn_hc.fn": "hc_attn_fn",
    "attn_hc.base": "hc_attn_base",
    "attn_hc.scale": "hc_attn_scale",
    "ffn_hc.fn": "hc_ffn_fn",
    "ffn_hc.base": "hc_ffn_base",
    "ffn_hc.scale": "hc_ffn_scale",
    "self_attn.sinks": "attn.attn_sink",
    "self_attn.q_a_proj.weight": "attn.wq_a.weight",
    "self_attn.q_a_norm.weight": "attn.q_norm.weight",
    "self_attn.q_b_proj.weight": "attn.wq_b.weight",
    "self_attn.kv_proj.weight": "attn.wkv.weight",
    "self_attn.kv_norm.weight": "attn.kv_norm.weight",
    "self_attn.o_a_proj.weight": "attn.wo_a.weight",
    "self_attn.o_b_proj.weight": "attn.wo_b.weight",
    "self_attn.compressor.kv_proj.weight": "attn.compressor.wkv.weight",
    "self_attn.compressor.gate_proj.weight": "attn.compressor.wgate.weight",
    "self_attn.compressor.position_bias": "attn.compressor.ape",
    "self_attn.compressor.kv_norm.weight": "attn.compressor.norm.weight",
    "self_attn.compressor.indexer.q_b_proj.weight": "attn.indexer.wq_b.weight",
    "self_attn.compressor.indexer.scorer.weights_proj.weight": "attn.indexer.weights_proj.weight",
    "self_attn.compressor.indexer.kv_proj.weight": "attn.indexer.compressor.wkv.weight",
    "self_attn.compressor.indexer.gate_proj.weight": "attn.indexer.compressor.wgate.weight",
    "self_attn.compressor.indexer.position_bias": "attn.indexer.compressor.ape",
    "self_attn.compressor.indexer.kv_norm.weight": "attn.indexer.compressor.norm.weight",
    "mlp.gate.weight": "ffn.gate.weight",
    "mlp.gate.tid2eid": "ffn.gate.tid2eid",
    "mlp.gate.e_score_correction_bias": "ffn.gate.bias",
    "mlp.shared_experts.gate_proj.weight": "ffn.shared_experts.w1.weight",
    "mlp.shared_experts.down_proj.weight": "ffn.shared_experts.w2.weight",
    "mlp.shared_experts.up_proj.weight": "ffn.shared_experts.w3.weight",
}


@dataclass
class Checkpoint:
    """A directory and what `write` puts into it; both dictionaries may be spoiled first."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, Any]

    def write(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, self.directory / FILE, metadata={"format": "pt"})
        self.write_config(json.dumps(self.config))
        return self.directory

    def write_config(self, text):
        (self.directory / "config.json").write_text(text, encoding="utf-8")

    def write_shards(self, count):
        """The same as `count` files and an index, as large checkpoints come."""
        self.write()
        (self.directory / FILE).unlink()
        names = sorted(self.tensors)
        places = {name: f"model-{i % count + 1:05}.safetensors" for i, name in enumerate(names)}
        for shard in set(places.values()):
            own = {name: self.tensors[name] for name in names if places[name] == shard}
            save_file(own, self.directory / shard)
        index = {"metadata": {}, "weight_map": places}
        (self.directory / f"{FILE}.index.json").write_text(json.dumps(index), encoding="utf-8")
        return self.directory


def loaded(name, path):
    """A Python file that is in no installed package."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_tiny():
    """tests/golden/tiny.py."""
    return loaded("golden_tiny", GOLDEN)


@pytest.fixture(scope="session")
def drawn():
    """(config, tensors) of a tiny model with every kind of layer."""
    tiny = load_tiny()
    return tiny.MODELS["mixed"], tiny.weights(tiny.MODELS["mixed"], 5)


@pytest.fixture
def checkpoint(drawn, tmp_path):
    config, tensors = drawn
    return Checkpoint(tmp_path / "model", dict(config), dict(tensors))


def official_config(config):
    """The same model in the keys of the published config.json."""
    ratios = {
        "sliding_attention": 0,
        "compressed_sparse_attention": 4,
        "heavily_compressed_attention": 128,
    }
    own = ("layer_types", "mlp_layer_types", "compress_rates", "partial_rotary_factor")
    return {
        **{key: value for key, value in config.items() if key not in own},
        "compress_ratios": [*(ratios[kind] for kind in config["layer_types"]), 0],
        "num_hash_layers": config["mlp_layer_types"].count("hash_moe"),
        "qk_rope_head_dim": int(config["head_dim"] * config["partial_rotary_factor"]),
        "rope_theta": 10000,
        "compress_rope_theta": 160000,
    }


def official_tensors(tensors):
    """The same weights by their official names, experts one by one."""
    renamed = {}
    for name, tensor in tensors.items():
        if name in WHOLE:
            renamed[WHOLE[name]] = tensor
            continue
        layer, rest = re.fullmatch(r"model\.(layers\.\d+\.)(.*)", name).groups()
        if rest in IN_LAYER:
            renamed[layer + IN_LAYER[rest]] = tensor
            continue
        for expert, matrix in enumerate(tensor):
            own = f"{layer}ffn.experts.{expert}."
            if rest == "mlp.experts.gate_up_proj":
                gate, up = np.split(matrix, 2)
                renamed[f"{own}w1.weight"] = np.ascontiguousarray(gate)
                renamed[f"{own}w3.weight"] = np.ascontiguousarray(up)
            else:
                assert rest == "mlp.experts.down_proj"
                renamed[f"{own}w2.weight"] = np.ascontiguousarray(matrix)
    return renamed


@pytest.fixture
def official(checkpoint, tmp_path):
    """The same model as an official checkpoint."""
    return Checkpoint(
        tmp_path / "official",
        official_config(checkpoint.config),
        official_tensors(checkpoint.tensors),
    )


@pytest.fixture(scope="session")
def dialects():
    """dialects.py beside this file."""
    return loaded("weights_dialects", Path(__file__).with_name("dialects.py"))


@pytest.fixture(scope="session")
def published_headers(tmp_path_factory):
    """The published V4 Flash as a directory of headers; its data are holes."""
    module = loaded("weights_published", Path(__file__).with_name("published.py"))
    return module.write(tmp_path_factory.mktemp("published") / "V4")


@pytest.fixture(scope="session")
def wide():
    """(official config, official tensors) of a tiny model whose rows are whole groups of 32, and
    whose FP8 blocks are cut at the edges."""
    tiny = load_tiny()
    sizes = {
        "hidden_size": 160,
        "moe_intermediate_size": 96,
        "num_attention_heads": 8,
        "q_lora_rank": 64,
        "o_lora_rank": 80,
    }
    config = {**tiny.MODELS["mixed"], **sizes}
    return official_config(config), official_tensors(tiny.weights(config, 7))
