"""The benchmark at full width counts and builds what it says, held against small sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
import json
from dataclasses import replace
from ds4_agent.engine import blas
blas.preload()
import mlx.core as mx
from bench.wide_model import PUBLISHED, build
from bench.wide_state import filled_state
SIZES = replace(
    PUBLISHED, vocab_size=256, hidden_size=128, num_hidden_layers=4, head_dim=64,
    num_attention_heads=4, qk_rope_head_dim=16, q_lora_rank=64, o_lora_rank=64, o_groups=2,
    index_n_heads=8, index_head_dim=32, index_topk=16, n_routed_experts=8, num_experts_per_tok=2,
    moe_intermediate_size=64, sliding_window=32, rope_scaling=None,
    layer_kinds=("sliding", "csa", "hca", "csa"), hash_routed=(True, True, False, False),
)
"""


def run(code):
    """What Python prints last, from the repository's root, as `make bench` runs."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_sizes_are_the_published_ones():
    code = "print(json.dumps([PUBLISHED.layer_kinds.count(k) for k in ('sliding', 'csa', 'hca')]))"
    assert run(code) == [2, 21, 20]


@pytest.mark.parametrize("layout", ["native", "q2", "fp32"])
def test_bytes_that_a_token_reads(layout):
    """Counted by the list of published tensors, for a CSA layer with scored experts."""
    code = f"""
ends, one = build("{layout}", (), (), SIZES), build("{layout}", ("csa",), (False,), SIZES)
print(json.dumps([one.stored_read - ends.stored_read, one.stored - ends.stored,
                  one.held - ends.held, one.held_read - ends.held_read]))
"""
    read, stored, held, held_read = run(code)
    attention, indexer_q = 64 * 128 + 256 * 64 + 64 * 128 + 2 * 64 * 128 + 128 * 128, 256 * 64
    expert, shared = 3 * 64 * 128, 3 * 64 * 128
    in_bf16 = 8 * 128 + 2 * 128 * 128 + 2 * 64 * 128  # index weights, both compressors
    in_bf16 += 8 * 128 + 2 * 128 + 64 + 64 + 64 + 32  # router, norms
    in_fp32 = 4 * 128 + 4 * 64 + 4 + 8 + 2 * (24 * 4 * 128 + 24 + 3)  # ape, sinks, bias, hyper
    bytes_of = {
        "native": (4.25 / 8, 1, 1),
        "q2": (2.5 / 8, 6.5 / 8, 8.5 / 8),
        "fp32": (2.5 / 8, 2, 2),
    }
    per_expert, per_attention, per_shared = bytes_of[layout]
    rest = attention * per_attention + shared * per_shared + 2 * in_bf16 + 4 * in_fp32
    rest += indexer_q * (2 if layout == "fp32" else 1)
    assert read == pytest.approx(rest + 2 * expert * per_expert)
    assert stored == pytest.approx(rest + 8 * expert * per_expert)
    assert read < held_read < held


def test_a_filled_state_has_the_shape_of_one_that_was_computed():
    code = """
from ds4_agent.engine.model.prefill import prefill
wide = build("native", SIZES.layer_kinds, SIZES.hash_routed, SIZES)
tokens = [5 + i % 200 for i in range(1152)]
logits, computed = prefill(wide.model, tokens, wide.model.init_state())
filled = filled_state(wide.model.config, 1152, wide.model.dtype)
after, _ = wide.model([7], filled)
shapes = [[[list(leaf.shape), str(leaf.dtype)] for leaf in s.leaves()] for s in (computed, filled)]
finite = [bool(mx.isfinite(x).all().item()) for x in (logits, after)]
print(json.dumps([shapes, finite, computed.position, filled.position]))
"""
    (computed, filled), finite, *positions = run(code)
    assert computed == filled
    assert all(finite)
    assert positions == [1152, 1152]


def test_the_figures_of_a_layout():
    code = """
from bench.wide_layers import measure, measure_fp32
from bench.width import rows
contexts = (1024, 4096, 8192)
figures = {"q2": measure("q2", SIZES, contexts), "fp32": measure_fp32(SIZES, contexts)}
print(json.dumps([figures, rows(figures)]))
"""
    figures, lines = run(code)
    q2, fp32 = figures["q2"], figures["fp32"]
    # Two CSA layers and one HCA layer, in fp32 on a CPU and in bf16 on a GPU.
    kv = 2 * (64 + 32) + 64 * 4 / 128
    assert q2["KV a token, bytes"] in (kv, kv / 2)
    assert all(value > 0 for label, value in q2.items() if "GB" in label)
    assert set(fp32) <= set(q2)
    step = [line for line in lines if line[0].startswith("whole step at 8,192 / at 4,096")]
    assert step[0][3:] in (["<= 3", "met"], ["<= 3", "MISSED"])
    assert all(len(line) == 5 for line in lines)
