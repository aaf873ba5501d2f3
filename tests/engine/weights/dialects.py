"""Tiny checkpoints in the layouts in which the model is published, byte for byte, from one set of
official fp32 tensors. Each writer gives the directory's tensors unpacked again, by official name:
what a checkpoint of plain fp32 would have to hold to be the same model."""

import json
import re

import mlx.core as mx
import numpy as np

FP8 = re.compile(
    r"\.(attn\.(wq_a|wq_b|wkv|wo_a|wo_b)|indexer\.wq_b|shared_experts\.w[123])\.weight$"
)
FP4 = re.compile(r"\.experts\.\d+\.w[123]\.weight$")
FP32 = re.compile(r"(hc_\w+|attn_sink|ape|gate\.bias)$")
PUBLISHED = {
    "torch_dtype": "bfloat16",
    "expert_dtype": "fp4",
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "scale_fmt": "ue8m0",
        "weight_block_size": [128, 128],
    },
}


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


def write_official(directory, config, tensors, *, drafts=()):
    """DeepSeek's own repository, in shards. `drafts`: names of draft tensors to put beside it."""
    stored, plain = {}, {}
    for name, tensor in tensors.items():
        if FP8.search(name):
            codes, scale, plain[name] = fp8_of(tensor)
            stored[name] = ("F8_E4M3", codes)
            stored[name.replace(".weight", ".scale")] = ("F8_E8M0", scale)
        elif FP4.search(name):
            codes, scale = (np.array(part) for part in mx.quantize(mx.array(tensor), mode="mxfp4"))
            plain[name] = unpacked_by_mlx(codes, scale, None, "mxfp4", 4, 32)
            stored[name] = ("I8", codes.view(np.int8))
            stored[name.replace(".weight", ".scale")] = ("F8_E8M0", scale)
        elif name.endswith("tid2eid"):
            plain[name] = tensor
            stored[name] = ("I64", tensor.astype(np.int64))
        elif FP32.search(name):
            plain[name] = tensor
            stored[name] = ("F32", tensor)
        else:
            rounded = mx.array(tensor).astype(mx.bfloat16)
            plain[name] = np.array(rounded.astype(mx.float32))
            stored[name] = ("BF16", np.array(rounded.view(mx.uint16)))
    for name in drafts:
        stored[name] = ("BF16", np.zeros((3, 5), np.uint16))
    directory.mkdir(parents=True)
    places = {name: f"model-{i % 3 + 1:05}-of-00003.safetensors" for i, name in enumerate(stored)}
    for shard in sorted(set(places.values())):
        write_raw(directory / shard, {n: v for n, v in stored.items() if places[n] == shard})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text(json.dumps({**config, **PUBLISHED}))
    return plain


def fp8_of(tensor):
    """(e4m3 codes, ue8m0 scale of each 128 x 128 block, the values they stand for)."""
    rows, columns = tensor.shape
    blocks = (-(-rows // 128), -(-columns // 128))
    padded = np.zeros((blocks[0] * 128, blocks[1] * 128), np.float32)
    padded[:rows, :columns] = np.abs(tensor)
    largest = padded.reshape(blocks[0], 128, blocks[1], 128).max(axis=(1, 3))
    exponent = np.ceil(np.log2(largest / 448)).astype(int)
    powers = np.ldexp(np.float32(1), exponent).repeat(128, 0)[:rows].repeat(128, 1)[:, :columns]
    codes = mx.to_fp8(mx.array(tensor / powers))
    values = np.array(mx.from_fp8(codes, dtype=mx.float32)) * powers
    return np.array(codes), (exponent + 127).astype(np.uint8), values.astype(np.float32)


def unpacked_by_mlx(codes, scales, biases, mode, bits, group_size):
    values = mx.dequantize(
        mx.array(codes),
        mx.array(scales),
        None if biases is None else mx.array(biases),
        mode=mode,
        bits=bits,
        group_size=group_size,
        dtype=mx.float32,
    )
    return np.array(values)


def write_mlx(
    directory, config, tensors, choose, *, prefix="", fused=False, said=None, wo_a_groups=0
):
    """A conversion by one of the MLX ports. `choose(path)`: (mode, bits, group size) of the module
    of that name, or None to leave it in fp32; `said` is what config.json calls all of them."""
    stored, plain = {}, {}
    for name, drawn in mlx_names(tensors, fused=fused).items():
        tensor = drawn
        path = name.removesuffix(".weight")
        form = choose(path) if name.endswith(".weight") and tensor.ndim > 1 else None
        if wo_a_groups and path.endswith("wo_a"):
            tensor = drawn.reshape(wo_a_groups, -1, drawn.shape[-1])
        if form is None:
            stored[prefix + name] = mx.array(tensor)
            plain[name] = tensor
            continue
        mode, bits, group_size = form
        options = {"mode": mode, "bits": bits, "group_size": group_size}
        codes, scales, *rest = mx.quantize(mx.array(tensor), **options)
        stored[prefix + name] = codes
        stored[f"{prefix}{path}.scales"] = scales
        if rest:
            stored[f"{prefix}{path}.biases"] = rest[0]
        plain[name] = unpacked_by_mlx(codes, scales, rest[0] if rest else None, *form)
    directory.mkdir(parents=True)
    mx.save_safetensors(str(directory / "model.safetensors"), stored, metadata={"format": "mlx"})
    quantization = said or {"mode": "affine", "bits": 8, "group_size": 64}
    (directory / "config.json").write_text(
        json.dumps({**config, "quantization": quantization, "quantization_config": quantization})
    )
    return {name: tensor.reshape(-1, tensor.shape[-1]) if name.endswith("wo_a.weight") else tensor
            for name, tensor in plain.items()}  # fmt: skip


def mlx_names(tensors, *, fused):
    """The same tensors with the names of the MLX ports, experts stacked."""
    named, experts = {}, {}
    whole = {"embed.weight": "model.embed_tokens.weight", "head.weight": "lm_head.weight"}
    parts = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    for name, tensor in tensors.items():
        own = re.fullmatch(r"(layers\.\d+\.ffn\.)experts\.\d+\.(w\d)\.weight", name)
        if own:
            experts.setdefault((own[1], own[2]), []).append(tensor)
            continue
        new = re.sub(r"hc_(attn|ffn)_(\w+)$", r"\1_hc.\2", name)
        new = re.sub(r"^hc_head_(\w+)$", r"hc_head.\1", new)
        new = new.replace("ffn.gate.bias", "ffn.gate.e_score_correction_bias")
        new = re.sub(r"shared_experts\.(w\d)", lambda m: f"shared_experts.{parts[m[1]]}", new)
        is_table = name.endswith("tid2eid")
        named[whole.get(new, f"model.{new}")] = tensor.astype(np.int32) if is_table else tensor
    for (layer, matrix), each in experts.items():
        named[f"model.{layer}switch_mlp.{parts[matrix]}.weight"] = np.stack(each)
    if fused:
        for name in [name for name in named if name.endswith("switch_mlp.gate_proj.weight")]:
            up = named.pop(name.replace("gate_proj", "up_proj"))
            together = np.concatenate([named.pop(name), up], axis=1)
            named[name.replace("gate_proj", "gate_up_proj")] = together
    return named
