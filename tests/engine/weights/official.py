"""The official names of a checkpoint's tensors and those of transformers' state_dict, and the keys
of the two config.json, written from the published lists; nothing of the engine is used."""

import re

import numpy as np

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


def transformers_tensors(tensors):
    """The other way: official tensors by transformers' names, experts stacked."""
    whole = {official: name for name, official in WHOLE.items()}
    in_layer = {official: name for name, official in IN_LAYER.items()}
    renamed, experts = {}, {}
    for name, tensor in tensors.items():
        if name in whole:
            renamed[whole[name]] = tensor
            continue
        layer, rest = re.fullmatch(r"(layers\.\d+\.)(.*)", name).groups()
        if rest in in_layer:
            renamed[f"model.{layer}{in_layer[rest]}"] = tensor
            continue
        expert, matrix = re.fullmatch(r"ffn\.experts\.(\d+)\.(w[123])\.weight", rest).groups()
        experts.setdefault(layer, {})[int(expert), matrix] = tensor
    for layer, own in experts.items():
        count = 1 + max(expert for expert, _ in own)
        both = [np.concatenate([own[e, "w1"], own[e, "w3"]]) for e in range(count)]
        renamed[f"model.{layer}mlp.experts.gate_up_proj"] = np.stack(both)
        down = [own[e, "w2"] for e in range(count)]
        renamed[f"model.{layer}mlp.experts.down_proj"] = np.stack(down)
    return renamed
