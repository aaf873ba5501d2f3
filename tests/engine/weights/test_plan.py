"""The memory plan: figures of the published model from its headers, and the refusal to load what
does not fit."""

from pathlib import Path

import mlx.core as mx
import pytest

from ds4_agent.engine.errors import MemoryLimitError
from ds4_agent.engine.machine import Machine, this_machine
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.weights.checkpoint import load_model, plan_model
from ds4_agent.engine.weights.plan import plan_memory
from ds4_agent.engine.weights.safetensors_file import TensorEntry

GB = 10**9
PUBLISHED = {
    "model_type": "deepseek_v4", "vocab_size": 129280, "hidden_size": 4096,
    "num_hidden_layers": 43, "num_attention_heads": 64, "head_dim": 512, "qk_rope_head_dim": 64,
    "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8, "index_n_heads": 64,
    "index_head_dim": 128, "index_topk": 512, "n_routed_experts": 256, "num_experts_per_tok": 6,
    "moe_intermediate_size": 2048, "num_hash_layers": 3, "routed_scaling_factor": 1.5,
    "swiglu_limit": 10.0, "sliding_window": 128, "max_position_embeddings": 1048576,
    "rope_theta": 10000, "compress_rope_theta": 160000, "hc_mult": 4,
    "scoring_func": "sqrtsoftplus", "compress_ratios": [0, 0] + [4, 128] * 20 + [4, 0],
}  # fmt: skip


def published_entries():
    """The main model's tensors as the official index has them, and a draft stage's."""
    entries = {}

    def add(name, dtype, *shape):
        entries[name] = TensorEntry(Path("model.safetensors"), dtype, shape, 0)

    def fp8(name, rows, columns):
        add(f"{name}.weight", "F8_E4M3", rows, columns)
        add(f"{name}.scale", "F8_E8M0", rows // 128, columns // 128)

    for name in ("embed.weight", "head.weight", "mtp.0.head.weight"):
        add(name, "BF16", 129280, 4096)
    for layer in range(43):
        own = f"layers.{layer}."
        for name, shape in (
            ("wq_a", (1024, 4096)),
            ("wq_b", (32768, 1024)),
            ("wkv", (512, 4096)),
            ("wo_a", (8192, 4096)),
            ("wo_b", (4096, 8192)),
        ):
            fp8(f"{own}attn.{name}", *shape)
        for which in ("attn", "ffn"):
            add(f"{own}hc_{which}_fn", "F32", 24, 16384)
        add(f"{own}ffn.gate.weight", "BF16", 256, 4096)
        for matrix, shape in (("w1", (2048, 4096)), ("w3", (2048, 4096)), ("w2", (4096, 2048))):
            fp8(f"{own}ffn.shared_experts.{matrix}", *shape)
            for expert in range(256):
                name = f"{own}ffn.experts.{expert}.{matrix}"
                add(f"{name}.weight", "I8", shape[0], shape[1] // 2)
                add(f"{name}.scale", "F8_E8M0", shape[0], shape[1] // 32)
    return entries


@pytest.fixture(scope="module")
def entries():
    return published_entries()


def plan_on(entries, machine, context=131_072):
    config = ModelConfig.from_json(PUBLISHED)
    return plan_memory(Path("V4"), config, entries, context, machine, stream_bytes=2, on_cpu=False)


def test_figures_of_the_published_model(entries):
    plan = plan_on(entries, Machine(256 << 30, 192 << 30, is_mac=True))
    # Shards 1 to 45 hold 156 GB; the head is kept in fp32 here.
    assert 154 * GB < plan.weights < 159 * GB
    assert plan.kv_token == 6_880  # 21 CSA layers, 20 HCA layers, bf16
    assert 0.9 * GB < plan.kv < 0.95 * GB
    assert 3.4 * GB < plan.working < 3.8 * GB
    assert plan.fits
    assert plan.refusal() is None
    assert plan.sysctl is None
    assert plan.largest_context == 1_048_576


def test_the_wired_limit_in_the_way(entries):
    plan = plan_on(entries, Machine(192 << 30, 144 << 30, is_mac=True))
    assert not plan.fits
    line = plan.refusal()
    megabytes = int(line.partition("sudo sysctl iogpu.wired_limit_mb=")[2].partition("`")[0])
    assert plan.needed <= megabytes << 20 <= (192 - 8) << 30
    assert "weights 15" in line
    assert plan_on(entries, Machine(192 << 30, megabytes << 20, is_mac=True)).fits


def test_a_machine_that_is_too_small(entries):
    line = plan_on(entries, Machine(128 << 30, 96 << 30, is_mac=True)).refusal()
    assert "sysctl" not in line
    assert "this machine can give 103.1 GB of its 137.4 GB" in line
    assert "give a smaller checkpoint" in line
    assert "mlx-community/DeepSeek-V4-Flash-2bit-DQ" in line


def test_a_context_that_is_too_long(entries):
    small = plan_on(entries, Machine(256 << 30, 192 << 30), 0).needed
    plan = plan_on(entries, Machine(256 << 30, small + GB), 1_000_000)
    assert not plan.fits
    assert plan.largest_context % 128 == 0
    assert f"give --ctx {plan.largest_context}" in plan.refusal()
    assert plan_on(entries, Machine(256 << 30, small + GB), plan.largest_context).fits
    assert not plan_on(entries, Machine(256 << 30, small + GB), plan.largest_context + 256).fits


def test_weights_planned_are_the_weights_loaded(wide, dialects, tmp_path):
    """Of an official checkpoint and of one of MLX, to a few per cent: of norms and constants."""
    config, tensors = wide
    dialects.write_official(tmp_path / "official", config, tensors)

    def choose(path):
        is_small = "compressor" in path or path.endswith("gate")
        return None if is_small else ("affine", 8, 32)

    dialects.write_mlx(tmp_path / "mlx", config, tensors, choose)
    for name in ("official", "mlx"):
        planned = plan_model(tmp_path / name, 0).weights
        loaded = size_of(load_model(tmp_path / name)._parameters)
        assert planned == pytest.approx(loaded, rel=0.05)


def size_of(tree):
    if isinstance(tree, mx.array):
        return tree.nbytes
    if isinstance(tree, tuple):
        return sum(map(size_of, tree))
    if hasattr(tree, "__dataclass_fields__"):
        return sum(map(size_of, vars(tree).values()))
    return getattr(tree, "nbytes", 0)


def test_what_does_not_fit_is_not_loaded(checkpoint):
    seen = []
    with pytest.raises(MemoryLimitError) as caught:
        load_model(
            checkpoint.write(),
            context_length=4096,
            machine=Machine(1 << 20, 1 << 19),
            on_load=lambda *progress: seen.append(progress),
        )
    assert not seen
    line = str(caught.value)
    assert "\n" not in line
    assert str(checkpoint.directory) in line
    assert "of memory (weights" in line


def test_this_machine_has_memory():
    machine = this_machine()
    assert 0 < machine.usable <= machine.memory
