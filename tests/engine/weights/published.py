"""The published V4 Flash without its data: config.json and the header of every tensor, as
DeepSeek's repository has them, in sparse files of the real size."""

import json
import math

CONFIG = {
    "model_type": "deepseek_v4", "vocab_size": 129280, "hidden_size": 4096,
    "num_hidden_layers": 43, "num_attention_heads": 64, "head_dim": 512, "qk_rope_head_dim": 64,
    "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8, "index_n_heads": 64,
    "index_head_dim": 128, "index_topk": 512, "n_routed_experts": 256, "num_experts_per_tok": 6,
    "moe_intermediate_size": 2048, "num_hash_layers": 3, "routed_scaling_factor": 1.5,
    "swiglu_limit": 10.0, "sliding_window": 128, "max_position_embeddings": 1048576,
    "rope_theta": 10000, "compress_rope_theta": 160000, "hc_mult": 4,
    "scoring_func": "sqrtsoftplus", "compress_ratios": [0, 0] + [4, 128] * 20 + [4, 0, 0, 0],
}  # fmt: skip
ITEM = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E8M0": 1, "I8": 1, "I64": 8}


def tensors():
    """(dtype, shape) of each tensor of the main model by its official name."""
    found = {}

    def fp8(name, rows, columns):
        found[f"{name}.weight"] = ("F8_E4M3", (rows, columns))
        found[f"{name}.scale"] = ("F8_E8M0", (rows // 128, columns // 128))

    def fp4(name, rows, columns):
        found[f"{name}.weight"] = ("I8", (rows, columns // 2))
        found[f"{name}.scale"] = ("F8_E8M0", (rows, columns // 32))

    def pool(name, width, ratio, norm):
        for part in ("wkv", "wgate"):
            found[f"{name}.{part}.weight"] = ("BF16", (width, 4096))
        found[f"{name}.ape"] = ("F32", (ratio, width))
        found[f"{name}.norm.weight"] = ("BF16", (norm,))

    for name in ("embed.weight", "head.weight"):
        found[name] = ("BF16", (129280, 4096))
    found["norm.weight"] = ("BF16", (4096,))
    found |= {"hc_head_fn": ("F32", (4, 16384)), "hc_head_base": ("F32", (4,))}
    found["hc_head_scale"] = ("F32", (1,))
    for layer, ratio in enumerate(CONFIG["compress_ratios"][:43]):
        own = f"layers.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            found[f"{own}{norm}.weight"] = ("BF16", (4096,))
        for part in ("attn", "ffn"):
            found[f"{own}hc_{part}_fn"] = ("F32", (24, 16384))
            found[f"{own}hc_{part}_base"] = ("F32", (24,))
            found[f"{own}hc_{part}_scale"] = ("F32", (3,))
        for name, rows, columns in (
            ("wq_a", 1024, 4096), ("wq_b", 32768, 1024), ("wkv", 512, 4096),
            ("wo_a", 8192, 4096), ("wo_b", 4096, 8192),
        ):  # fmt: skip
            fp8(f"{own}attn.{name}", rows, columns)
        found[f"{own}attn.q_norm.weight"] = ("BF16", (1024,))
        found[f"{own}attn.kv_norm.weight"] = ("BF16", (512,))
        found[f"{own}attn.attn_sink"] = ("F32", (64,))
        if ratio:
            pool(f"{own}attn.compressor", 1024 if ratio == 4 else 512, ratio, 512)
        if ratio == 4:
            fp8(f"{own}attn.indexer.wq_b", 8192, 1024)
            found[f"{own}attn.indexer.weights_proj.weight"] = ("BF16", (64, 4096))
            pool(f"{own}attn.indexer.compressor", 256, 4, 128)
        found[f"{own}ffn.gate.weight"] = ("BF16", (256, 4096))
        if layer < 3:
            found[f"{own}ffn.gate.tid2eid"] = ("I64", (129280, 6))
        else:
            found[f"{own}ffn.gate.bias"] = ("F32", (256,))
        for matrix, rows, columns in (("w1", 2048, 4096), ("w3", 2048, 4096), ("w2", 4096, 2048)):
            fp8(f"{own}ffn.shared_experts.{matrix}", rows, columns)
            for expert in range(256):
                fp4(f"{own}ffn.experts.{expert}.{matrix}", rows, columns)
    return found


def write(directory):
    """The repository: a file a layer, whose data nobody has written."""
    directory.mkdir(parents=True)
    shards = {}
    for name, spec in tensors().items():
        shard = name.split(".")[1] if name.startswith("layers.") else "ends"
        shards.setdefault(f"model-{shard}.safetensors", {})[name] = spec
    for file, own in shards.items():
        header, start = {}, 0
        for name, (dtype, shape) in own.items():
            stop = start + ITEM[dtype] * math.prod(shape)
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
            start = stop
        text = json.dumps(header).encode()
        with (directory / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + start)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    return directory
