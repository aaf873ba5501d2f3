"""Tiny checkpoints in the layouts in which the model is published, byte for byte, from one set of
official fp32 tensors. Each writer gives the directory's tensors unpacked again, by official name:
what a checkpoint of plain fp32 would have to hold to be the same model. Neither MLX nor the engine
has a part in it. LAYOUTS names them all, for the tests and for tests/golden/make_golden.py."""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import numpy as np


def beside(name):
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


formats, official = beside("formats"), beside("official")

FP8 = re.compile(
    r"\.(attn\.(wq_a|wq_b|wkv|wo_a|wo_b)|indexer\.wq_b|shared_experts\.w[123])\.weight$"
)
EXPERT = re.compile(r"\.experts\.\d+\.w[123]\.weight$")
FP32 = re.compile(r"(hc_\w+|attn_sink|ape|gate\.bias)$")
PREVIEW = {
    "torch_dtype": "bfloat16",
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "scale_fmt": "ue8m0",
        "weight_block_size": [128, 128],
    },
}
PUBLISHED = {**PREVIEW, "expert_dtype": "fp4"}  # 0731
DRAFTS_PREVIEW = ("mtp.0.e_proj.weight", "mtp.0.ffn.experts.0.w1.weight", "mtp.0.hc_head_fn")
DRAFTS_0731 = ("mtp.0.main_proj.weight", "mtp.2.markov_head.markov_w1.weight", "mtp.2.norm.weight")


def write_raw(path, tensors):
    """A safetensors file of {name: (dtype, array whose bytes are stored)}."""
    header, blobs, start = {}, [], 0
    for name, (dtype, array) in tensors.items():
        blob = np.ascontiguousarray(array).tobytes()
        shape = list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(blob)]}
        blobs.append(blob)
        start += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def write_official(directory, config, tensors, *, drafts=(), said=PUBLISHED, expert_dtype="fp4"):
    """DeepSeek's own repository, in shards. `drafts`: names of draft tensors to put beside it;
    `said`: keys of its config.json; the experts of the Base model are "fp8"."""
    stored, plain = {}, {}
    for name, tensor in tensors.items():
        scale_name = name.replace(".weight", ".scale")
        is_expert = EXPERT.search(name)
        if FP8.search(name) or (is_expert and expert_dtype == "fp8"):
            codes, scale, plain[name] = formats.fp8_blocks(tensor)
            stored[name], stored[scale_name] = ("F8_E4M3", codes), ("F8_E8M0", scale)
        elif is_expert:
            codes, scale, plain[name] = formats.fp4_groups(tensor)
            stored[name], stored[scale_name] = ("I8", codes), ("F8_E8M0", scale)
        elif name.endswith("tid2eid"):
            stored[name], plain[name] = ("I64", tensor.astype(np.int64)), tensor
        elif FP32.search(name):
            stored[name], plain[name] = ("F32", tensor), tensor
        else:
            bits, plain[name] = formats.bf16_of(tensor)
            stored[name] = ("BF16", bits)
    for name in drafts:
        stored[name] = ("BF16", np.zeros((3, 5), np.uint16))
    directory.mkdir(parents=True)
    places = {name: f"model-{i % 3 + 1:05}-of-00003.safetensors" for i, name in enumerate(stored)}
    for shard in sorted(set(places.values())):
        write_raw(directory / shard, {n: v for n, v in stored.items() if places[n] == shard})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text(json.dumps({**config, **said}))
    return plain


def write_transformers(directory, config, tensors):
    """transformers' own names, in bf16; `config` is still the official one."""
    stored, plain = {}, {}
    for name, tensor in tensors.items():
        bits, plain[name] = (None, tensor) if FP32.search(name) else formats.bf16_of(tensor)
        if name.endswith("tid2eid"):
            plain[name] = tensor
        stored[name] = tensor if bits is None or name.endswith("tid2eid") else bits
    directory.mkdir(parents=True)
    kinds = {"float32": "F32", "uint16": "BF16", "int64": "I64"}
    renamed = official.transformers_tensors(stored)
    raw = {name: (kinds[str(tensor.dtype)], tensor) for name, tensor in renamed.items()}
    write_raw(directory / "model.safetensors", raw)
    (directory / "config.json").write_text(json.dumps(config))
    return plain


def write_mlx(
    directory, config, tensors, choose, *, prefix="", fused=False, said=None, wo_a_groups=0
):
    """A conversion by one of the MLX ports. `choose(path)`: (mode, bits, group size) of the module
    of that name, or None to leave it in bf16; `said` is what config.json calls all of them."""
    stored, plain = {}, {}
    for name, drawn in mlx_names(tensors, fused=fused).items():
        path = name.removesuffix(".weight")
        is_grouped = wo_a_groups and path.endswith("wo_a")
        tensor = drawn.reshape(wo_a_groups, -1, drawn.shape[-1]) if is_grouped else drawn
        form = choose(path) if name.endswith(".weight") and tensor.ndim > 1 else None
        if name.endswith("tid2eid"):
            stored[prefix + name], plain[name] = ("I32", tensor), tensor
        elif FP32.search(name) or "hc." in name or name.endswith("correction_bias"):
            stored[prefix + name], plain[name] = ("F32", tensor), tensor
        elif form is None:
            bits, plain[name] = formats.bf16_of(tensor)
            stored[prefix + name] = ("BF16", bits)
        else:
            words, scales, biases, plain[name] = formats.quantised(tensor, *form)
            stored[prefix + name] = ("U32", words)
            stored[f"{prefix}{path}.scales"] = ("U8" if biases is None else "BF16", scales)
            if biases is not None:
                stored[f"{prefix}{path}.biases"] = ("BF16", biases)
    directory.mkdir(parents=True)
    write_raw(directory / "model.safetensors", stored)
    quantization = said or {"mode": "affine", "bits": 8, "group_size": 64}
    (directory / "config.json").write_text(
        json.dumps({**config, "quantization": quantization, "quantization_config": quantization})
    )
    return official_names(plain, tensors)


def mlx_names(tensors, *, fused):
    """The same tensors with the names of the MLX ports, experts stacked."""
    named, experts = {}, {}
    parts = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    for name, tensor in tensors.items():
        own = re.fullmatch(r"(layers\.\d+\.ffn\.)experts\.\d+\.(w\d)\.weight", name)
        if own:
            experts.setdefault((own[1], own[2]), []).append(tensor)
        else:
            is_table = name.endswith("tid2eid")
            named[mlx_name(name)] = tensor.astype(np.int32) if is_table else tensor
    for (layer, matrix), each in experts.items():
        named[f"model.{layer}switch_mlp.{parts[matrix]}.weight"] = np.stack(each)
    if fused:
        for name in [name for name in named if name.endswith("switch_mlp.gate_proj.weight")]:
            up = named.pop(name.replace("gate_proj", "up_proj"))
            together = np.concatenate([named.pop(name), up], axis=1)
            named[name.replace("gate_proj", "gate_up_proj")] = together
    return named


def mlx_name(name):
    """That of a tensor which is no routed expert's."""
    parts = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    whole = {"embed.weight": "model.embed_tokens.weight", "head.weight": "lm_head.weight"}
    new = re.sub(r"hc_(attn|ffn)_(\w+)$", r"\1_hc.\2", name)
    new = re.sub(r"^hc_head_(\w+)$", r"hc_head.\1", new)
    new = new.replace("ffn.gate.bias", "ffn.gate.e_score_correction_bias")
    new = re.sub(r"shared_experts\.(w\d)", lambda m: f"shared_experts.{parts[m[1]]}", new)
    return whole.get(new, f"model.{new}")


def official_names(named, tensors):
    """`named` by the names of the MLX ports again by the official names of `tensors`."""
    plain = {}
    for name, original in tensors.items():
        own = re.fullmatch(r"(layers\.\d+\.ffn\.)experts\.(\d+)\.(w\d)\.weight", name)
        if own is None:
            plain[name] = named[mlx_name(name)].reshape(original.shape)
            continue
        stack = f"model.{own[1]}switch_mlp."
        gate_up = named.get(f"{stack}gate_up_proj.weight")
        if own[3] == "w2" or gate_up is None:
            part = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}[own[3]]
            plain[name] = named[f"{stack}{part}.weight"][int(own[2])]
        else:
            gate, up = np.split(gate_up[int(own[2])], 2)
            plain[name] = gate if own[3] == "w1" else up
    return plain


# All of them. A model whose rows are whole groups of 32 and whose FP8 blocks are cut at the edges,
# and one for groups of 64 and 128.
WIDE = {
    "hidden_size": 160,
    "moe_intermediate_size": 96,
    "num_attention_heads": 8,
    "q_lora_rank": 64,
    "o_lora_rank": 80,
}
BROAD = {**WIDE, "hidden_size": 256, "moe_intermediate_size": 128}
BROAD |= {"q_lora_rank": 128, "o_lora_rank": 64}


def in_mode(form, path):
    """All matrices in one mode, embedding, head, router and compressor included."""
    return form


def as_mixed(path):
    """Experts, attention and the rest each in another mode, as published mixes have it."""
    if path.endswith(("switch_mlp.gate_proj", "gate_up_proj")):
        return ("affine", 2, 32)
    if "switch_mlp" in path:
        return ("affine", 3, 32)
    if path.endswith(("wq_b", "wq_a")):
        return ("affine", 6, 32)
    return ("mxfp8", 8, 32) if path.endswith(("wo_a", "wo_b")) else None


def as_canonical(path):
    """What mlx-vlm, Rapid-MLX and oMLX convert to: DeepSeek's own codes, the rest affine."""
    if "switch_mlp" in path:
        return ("mxfp4", 4, 32)
    if "shared_experts" in path or re.search(r"\.attn\.(w|indexer\.wq)", path):
        return ("mxfp8", 8, 32)
    if "compressor" in path or path.endswith("ffn.gate"):
        return None
    return ("affine", 8, 64)


WRONG = {"bits": 4, "group_size": 64, "model.layers.1.attn.wq_a": False}  # of every module
CANONICAL = {"group_size": 64, "bits": 8, "mode": "affine"}
AFFINE_GROUPS = {2: 64, 3: 128, 4: 32, 5: 64, 6: 32, 8: 128}
MODES = [("affine", bits, group) for bits, group in AFFINE_GROUPS.items()]
MODES += [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]

# name: (sizes, writer(directory, official config, official tensors) -> the tensors unpacked)
LAYOUTS = {
    "preview": (WIDE, partial(write_official, drafts=DRAFTS_PREVIEW, said=PREVIEW)),
    "0731": (WIDE, partial(write_official, drafts=DRAFTS_0731)),
    "base": (WIDE, partial(write_official, said=PREVIEW, expert_dtype="fp8")),
    "transformers": (WIDE, write_transformers),
    **{
        f"{form[0]}-{form[1]}": (BROAD, partial(write_mlx, choose=partial(in_mode, form)))
        for form in MODES
    },
    "mixed": (WIDE, partial(write_mlx, choose=as_mixed, said=WRONG, wo_a_groups=2)),
    "mixed-fused": (
        WIDE,
        partial(write_mlx, choose=as_mixed, said=WRONG, fused=True, prefix="language_model."),
    ),
    "canonical": (
        BROAD,
        partial(write_mlx, choose=as_canonical, said=CANONICAL, fused=True, wo_a_groups=2),
    ),
}


def sizes_of(tiny, name):
    """The config of a layout's model in transformers' keys. `tiny`: tests/golden/tiny.py."""
    return {**tiny.MODELS["mixed"], **LAYOUTS[name][0]}


def written(tiny, name, seed, directory):
    """The checkpoint `name` of the weights of `seed`; gives its tensors unpacked."""
    config = sizes_of(tiny, name)
    said = config if name == "transformers" else official.official_config(config)
    tensors = official.official_tensors(tiny.weights(config, seed))
    return LAYOUTS[name][1](directory, said, tensors)
