"""What each recipe makes of the published V4 Flash: sizes and the machines they fit, from the
headers of all its tensors and no data, through the functions that a conversion uses."""

from pathlib import Path

import pytest

from ds4_agent.engine.errors import ConversionError
from ds4_agent.engine.machine import Machine
from ds4_agent.engine.weights.checkpoint import read_config
from ds4_agent.engine.weights.convert import convert
from ds4_agent.engine.weights.names import official_name
from ds4_agent.engine.weights.packed_formats import PackedFormat
from ds4_agent.engine.weights.plan import plan_memory
from ds4_agent.engine.weights.recipe import RECIPES, bits_a_value, target_format
from ds4_agent.engine.weights.safetensors_file import TensorEntry
from ds4_agent.engine.weights.shards import outline
from ds4_agent.engine.weights.tensors import TensorFiles

GB = 10**9
# What macOS lets a model have before its owner raises the limit.
MAC_96 = Machine(96 << 30, 72 << 30, is_mac=True)
MAC_128 = Machine(128 << 30, 96 << 30, is_mac=True)
MAC_192 = Machine(192 << 30, 144 << 30, is_mac=True)
CONTEXT = 131_072
FP4, FP8 = PackedFormat("mxfp4", 4, 32), PackedFormat("mxfp8", 8, 32)


@pytest.fixture(scope="module")
def published(published_headers):
    return published_headers


@pytest.fixture(scope="module")
def outlines(published):
    files, config = TensorFiles(published), read_config(published)
    return {name: outline(files, config, recipe) for name, recipe in RECIPES.items()}


def plan_on(published, shards, machine):
    entries = {
        official_name(spec.name): TensorEntry(Path("x"), spec.dtype, spec.shape, 0)
        for shard in shards
        for spec in shard.specs
    }
    config = read_config(published)
    return plan_memory(published, config, entries, CONTEXT, machine, stream_bytes=2, on_cpu=False)


def test_the_headers_are_those_that_are_published(published):
    """Shards 1 to 45 of 0731 hold 156 GB."""
    size = sum(path.stat().st_size for path in published.glob("*.safetensors"))
    assert 155.9 * GB < size < 156.1 * GB


@pytest.mark.parametrize(
    ("recipe", "gigabytes"),
    [("native", 156.2), ("q4", 154.2), ("q3", 121.2), ("q2", 96.4), ("q2-96", 86.9)],
)
def test_sizes(outlines, recipe, gigabytes):
    """The README's table."""
    assert round(sum(shard.bytes for shard in outlines[recipe]) / GB, 1) == gigabytes


def test_q2_fits_128_gb_as_the_system_leaves_it(published, outlines):
    plan = plan_on(published, outlines["q2"], MAC_128)
    assert plan.fits
    assert plan.sysctl is None
    assert plan.largest_context >= 2 * CONTEXT


def test_q2_96_fits_96_gb_once_the_limit_is_raised(published, outlines):
    plan = plan_on(published, outlines["q2-96"], MAC_96)
    assert not plan.fits
    assert plan.sysctl is not None
    raised = int(plan.sysctl.rpartition("=")[2]) << 20
    assert plan_on(published, outlines["q2-96"], Machine(96 << 30, raised, is_mac=True)).fits
    assert plan_on(published, outlines["q2"], MAC_96).sysctl is None  # which is why there are two


def test_q3_fits_128_gb_and_the_lossless_one_192_once_the_limit_is_raised(published, outlines):
    assert plan_on(published, outlines["q3"], MAC_128).sysctl is not None
    assert plan_on(published, outlines["q4"], MAC_128).sysctl is None
    assert plan_on(published, outlines["native"], MAC_192).sysctl is not None


def test_a_file_is_a_layer_and_none_is_larger_than_the_published(outlines):
    for shards in outlines.values():
        assert len(shards) == 44
        assert max(shard.bytes for shard in shards) <= 3.61 * GB


@pytest.mark.parametrize("recipe", RECIPES)
def test_small_and_touchy_weights_stay_as_they_are(outlines, recipe):
    touched = ("experts.", "attn.wq_", "attn.wkv", "attn.wo_", "embed.", "head.")
    for shard in outlines[recipe]:
        for weight in shard.weights:
            if ".indexer." in weight.name or not any(part in weight.name for part in touched):
                assert not weight.is_rounded


def test_bits_by_recipe(outlines):
    """Of an expert of the first layer, one in between, attention, the shared expert, the head."""
    names = (
        "layers.0.ffn.experts.down_proj.weight",
        "layers.20.ffn.experts.down_proj.weight",
        "layers.20.attn.wo_b.weight",
        "layers.20.ffn.shared_experts.w2.weight",
        "head.weight",
    )
    bits = {}
    for recipe, shards in outlines.items():
        by_name = {weight.name: weight.target for shard in shards for weight in shard.weights}
        bits[recipe] = [by_name[name] and bits_a_value(by_name[name]) for name in names]
    assert bits == {
        "native": [4.25, 4.25, 8.25, 8.25, None],
        "q4": [4.25, 4.25, 6.5, 8.25, 8.5],
        "q3": [4.25, 3.25, 6.5, 8.25, 8.5],
        "q2": [4.25, 2.5, 6.5, 8.25, 8.5],
        "q2-96": [3.5, 2.25, 6.5, 8.25, 8.5],
    }


def test_nothing_is_rounded_into_as_many_bits():
    name = "layers.3.ffn.experts.w2.weight"
    q4, q3 = RECIPES["q4"], RECIPES["q3"]
    assert target_format(q4, name, 43, 2048, FP4) == FP4
    assert target_format(q4, name, 43, 2048, FP8) == PackedFormat("affine", 4, 64)
    assert target_format(q3, name, 43, 2048, FP4) == PackedFormat("affine", 3, 128)
    assert target_format(q3, name, 43, 96, None) == PackedFormat("affine", 3, 32)
    assert target_format(q3, name, 43, 24, None) is None


def test_too_little_disk_is_said_with_figures_before_anything_is_written(published, tmp_path):
    with pytest.raises(ConversionError) as caught:
        convert(published, tmp_path / "made", RECIPES["q2"], free=lambda path: 90 * GB)
    line = str(caught.value)
    assert "90.0 GB free and the conversion takes 96.4 GB" in line
    assert "\n" not in line
    assert not (tmp_path / "made").exists()
