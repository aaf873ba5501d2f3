"""In how many bits a conversion stores each weight. In: a recipe's name, the official name of a
weight, its columns and how the source stores it. Out: the format it gets, or None for as it is.
It reads no file and quantises nothing.

What is never rounded, in any recipe: norms, routers and their tables, hyper-connections,
compressors, indexers, sinks. Nor is a weight that the source holds in as few bits already:
DeepSeek's experts are FP4, which four affine bits a value would only make larger and worse.
"""

import re
from dataclasses import dataclass

from ds4_agent.engine.weights.packed_formats import PackedFormat

__all__ = ["RECIPES", "Recipe", "bits_a_value", "target_format"]

_ROUTED = re.compile(r"^layers\.(\d+)\.ffn\.experts\.")
_SHARED = re.compile(r"^layers\.\d+\.ffn\.shared_experts\.w[123]\.weight$")
_ATTENTION = re.compile(r"^layers\.\d+\.attn\.(wq_a|wq_b|wkv|wo_a|wo_b)\.weight$")
_ENDS = ("embed.weight", "head.weight")
_GROUPS = (128, 64, 32)  # of MLX's affine modes


@dataclass(frozen=True)
class Recipe:
    """The formats of the large weights; None: as in the source."""

    name: str
    experts: PackedFormat | None = None
    edges: PackedFormat | None = None  # the experts of the first and of the last layer
    attention: PackedFormat | None = None
    shared: PackedFormat | None = None  # shared experts
    ends: PackedFormat | None = None  # embedding and head


def _affine(bits: int, group_size: int) -> PackedFormat:
    return PackedFormat("affine", bits, group_size)


def _recipe(name: str, experts: PackedFormat, edges: PackedFormat) -> Recipe:
    """Every token reads attention, shared expert and head whole, and six experts of 256. So six
    bits in attention make decoding faster, which two bits in the experts hardly do, and eight in
    the rest cost next to nothing."""
    eight = _affine(8, 64)
    return Recipe(name, experts, edges, attention=_affine(6, 64), shared=eight, ends=eight)


# A group of affine values has a scale and an offset of 16 bits each: half a bit a value in groups
# of 64, a quarter in groups of 128. 277 of the 284 billion weights of V4 Flash are routed experts,
# so a quarter of a bit there is 8.7 GB.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        # Every value as it is.
        Recipe("native"),
        _recipe("q4", _affine(4, 64), _affine(4, 64)),
        # Groups of 128: with 64 it would need a machine of 192 GB, which holds `native` as well.
        _recipe("q3", _affine(3, 128), _affine(4, 64)),
        # The smallest groups with which it and a long context stand within the 96 GiB that macOS
        # wires by itself on a machine of 128 GB.
        _recipe("q2", _affine(2, 64), _affine(4, 64)),
        # For a machine of 96 GB, whose owner has to raise the limit in any case.
        _recipe("q2-96", _affine(2, 128), _affine(3, 64)),
    )
}


def bits_a_value(form: PackedFormat) -> float:
    """With its share of the group's scale, and offset where there is one."""
    return form.bits + (32 if form.mode == "affine" else 8) / form.group_size


def target_format(
    recipe: Recipe, name: str, layers: int, columns: int, stored: PackedFormat | None
) -> PackedFormat | None:
    """What the weight of an official name becomes, in a model of so many layers; `stored`: what it
    is in the source, None for plain numbers. A result equal to `stored`: not a bit changes."""
    wanted = _wanted(recipe, name, layers)
    if wanted is None:
        return stored
    group = next((g for g in _GROUPS if g <= wanted.group_size and columns % g == 0), None)
    if group is None:  # rows too narrow to be quantised; no published one is
        return stored
    target = PackedFormat(wanted.mode, wanted.bits, group)
    if stored is not None and bits_a_value(stored) <= bits_a_value(target):
        return stored
    return target


def _wanted(recipe: Recipe, name: str, layers: int) -> PackedFormat | None:
    routed = _ROUTED.match(name)
    if routed is not None:
        return recipe.edges if int(routed[1]) in (0, layers - 1) else recipe.experts
    if _SHARED.match(name):
        return recipe.shared
    if _ATTENTION.match(name):
        return recipe.attention
    return recipe.ends if name in _ENDS else None
