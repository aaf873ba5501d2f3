"""The outline of a conversion: which files it writes, which tensors stand in each, and from which
rows of the source each is made. In: the headers of an open checkpoint, its config and a recipe.
Out: `Shard`s, of known size, or one `ModelFormatError` line for a source that lacks something. It
reads no tensor data.

One file a layer, in the names of the MLX ports, experts stacked, gate over up: so the engine has
nothing to copy together when it loads.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.weights.names import mlx_name
from ds4_agent.engine.weights.packed_formats import PackedFormat
from ds4_agent.engine.weights.recipe import Recipe, target_format
from ds4_agent.engine.weights.shard_file import TensorSpec, file_bytes
from ds4_agent.engine.weights.tensors import TensorFiles

__all__ = ["Piece", "Shard", "Weight", "outline"]

_FLOATS = ("F32", "F16", "BF16")
# A weight's format in the source, the dtype of its numbers or of its scales.
_Storage: TypeAlias = tuple[PackedFormat | None, str]
_AFFINE_SCALES = "BF16"  # as all published conversions have them


@dataclass(frozen=True)
class Piece:
    """Rows of a weight of the source that follow each other."""

    source: str  # its official name
    first: int
    rows: int
    matrix: str  # the official name of the single matrix these rows are, of one expert if it is one


@dataclass(frozen=True)
class Weight:
    """A weight of the result, and what it is made of."""

    name: str  # official, or that of stacked experts in the engine
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]  # one below the other
    stored: PackedFormat | None  # in the source; None: plain numbers
    target: PackedFormat | None
    specs: tuple[TensorSpec, ...]  # the numbers, or codes, scales and, if affine, biases

    @property
    def path(self) -> str:
        """The module's name in config.json's `quantization`."""
        return self.specs[0].name.removesuffix(".weight")

    @property
    def values(self) -> int:
        return sum(piece.rows for piece in self.pieces) * self.shape[-1]

    @property
    def is_rounded(self) -> bool:
        return self.target != self.stored


@dataclass(frozen=True)
class Shard:
    """One file of the result."""

    file: str
    weights: tuple[Weight, ...]

    @property
    def specs(self) -> list[TensorSpec]:
        return [spec for weight in self.weights for spec in weight.specs]

    @property
    def bytes(self) -> int:
        return file_bytes(self.specs)

    @property
    def values(self) -> int:
        return sum(weight.values for weight in self.weights)


def outline(files: TensorFiles, config: ModelConfig, recipe: Recipe) -> list[Shard]:
    """Every file of the conversion, a layer each and then the two ends of the model."""
    groups = [list(_layer(files, config, recipe, n)) for n in range(config.num_hidden_layers)]
    groups.append(list(_ends(files, config, recipe)))
    count = len(groups)
    return [
        Shard(f"model-{n:05}-of-{count:05}.safetensors", tuple(weights))
        for n, weights in enumerate(groups, 1)
    ]


def _ends(files: TensorFiles, c: ModelConfig, recipe: Recipe) -> Iterator[Weight]:
    n, wide = c.hc_mult, c.hc_mult * c.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "embed.weight": (c.vocab_size, c.hidden_size),
        "hc_head_fn": (n, wide),
        "hc_head_base": (n,),
        "hc_head_scale": (1,),
        "norm.weight": (c.hidden_size,),
    }
    if not c.tie_word_embeddings or "head.weight" in files:
        shapes["head.weight"] = (c.vocab_size, c.hidden_size)
    for name, shape in shapes.items():
        yield _single(files, c, recipe, name, shape)


def _layer(files: TensorFiles, c: ModelConfig, recipe: Recipe, layer: int) -> Iterator[Weight]:
    prefix = f"layers.{layer}."
    shapes = {**_hyper_shapes(c), **_attention_shapes(c, layer)}
    for name, shape in shapes.items():
        yield _single(files, c, recipe, prefix + name, shape)
    experts, hidden, wide = c.n_routed_experts, c.hidden_size, c.moe_intermediate_size
    ffn = f"{prefix}ffn."
    if c.hash_routed[layer]:
        yield _table(files, f"{ffn}gate.tid2eid", (c.vocab_size, c.num_experts_per_tok))
    elif f"{ffn}gate.bias" in files:
        yield _single(files, c, recipe, f"{ffn}gate.bias", (experts,))
    yield _single(files, c, recipe, f"{ffn}gate.weight", (experts, hidden))
    for name, shape in (("w1", (wide, hidden)), ("w3", (wide, hidden)), ("w2", (hidden, wide))):
        yield _single(files, c, recipe, f"{ffn}shared_experts.{name}.weight", shape)
    yield from _routed(files, c, recipe, f"{ffn}experts.")


def _hyper_shapes(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    n = c.hc_mult
    rows = 2 * n + n * n
    shapes: dict[str, tuple[int, ...]] = {}
    for part, norm in (("attn", "attn_norm.weight"), ("ffn", "ffn_norm.weight")):
        shapes[f"hc_{part}_fn"] = (rows, n * c.hidden_size)
        shapes[f"hc_{part}_base"] = (rows,)
        shapes[f"hc_{part}_scale"] = (3,)
        shapes[norm] = (c.hidden_size,)
    return shapes


def _attention_shapes(c: ModelConfig, layer: int) -> dict[str, tuple[int, ...]]:
    heads, mixed = c.num_attention_heads * c.head_dim, c.o_groups * c.o_lora_rank
    shapes: dict[str, tuple[int, ...]] = {
        "attn.wq_a.weight": (c.q_lora_rank, c.hidden_size),
        "attn.q_norm.weight": (c.q_lora_rank,),
        "attn.wq_b.weight": (heads, c.q_lora_rank),
        "attn.wkv.weight": (c.head_dim, c.hidden_size),
        "attn.kv_norm.weight": (c.head_dim,),
        "attn.attn_sink": (c.num_attention_heads,),
        "attn.wo_a.weight": (mixed, heads // c.o_groups),
        "attn.wo_b.weight": (c.hidden_size, mixed),
    }
    kind, ratio = c.layer_kinds[layer], c.ratio(layer)
    if kind == "sliding":
        return shapes
    halves = 2 if kind == "csa" else 1  # pooled rows overlap there
    shapes |= _pool_shapes("attn.compressor.", c.head_dim, halves, ratio, c)
    if kind == "csa":
        shapes["attn.indexer.wq_b.weight"] = (c.index_n_heads * c.index_head_dim, c.q_lora_rank)
        shapes["attn.indexer.weights_proj.weight"] = (c.index_n_heads, c.hidden_size)
        shapes |= _pool_shapes("attn.indexer.compressor.", c.index_head_dim, halves, ratio, c)
    return shapes


def _pool_shapes(
    prefix: str, width: int, halves: int, ratio: int, c: ModelConfig
) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}wkv.weight": (halves * width, c.hidden_size),
        f"{prefix}wgate.weight": (halves * width, c.hidden_size),
        f"{prefix}ape": (ratio, halves * width),
        f"{prefix}norm.weight": (width,),
    }


def _single(
    files: TensorFiles, c: ModelConfig, recipe: Recipe, name: str, shape: tuple[int, ...]
) -> Weight:
    pieces = (Piece(name, 0, math.prod(shape[:-1]), name),)
    return _weight(c, recipe, name, shape, pieces, _stored(files, pieces, shape))


def _table(files: TensorFiles, name: str, shape: tuple[int, ...]) -> Weight:
    """A table of experts; small numbers, whatever they are stored as."""
    files.check_integers(name, shape)
    pieces = (Piece(name, 0, shape[0], name),)
    specs = (TensorSpec(mlx_name(name), "I32", shape),)
    return Weight(name, shape, pieces, None, None, specs)


def _routed(files: TensorFiles, c: ModelConfig, recipe: Recipe, prefix: str) -> Iterator[Weight]:
    """Gate over up of every expert, and down of every expert. Where the source has gate and up in
    two formats, they stay apart."""
    experts, hidden, wide = c.n_routed_experts, c.hidden_size, c.moe_intermediate_size
    gates, ups, downs = (_expert_pieces(files, prefix, name, c) for name in ("w1", "w3", "w2"))
    both = tuple(piece for pair in zip(gates, ups, strict=True) for piece in pair)
    stored = _stored(files, both, (experts, 2 * wide, hidden))
    if stored[gates[0].source] == stored[ups[0].source]:
        parts = [("gate_up_proj", 2 * wide, both)]
    else:
        parts = [("gate_proj", wide, gates), ("up_proj", wide, ups)]
    for name, rows, pieces in parts:
        yield _weight(c, recipe, f"{prefix}{name}.weight", (experts, rows, hidden), pieces, stored)
    shape = (experts, hidden, wide)
    stored = _stored(files, downs, shape)
    yield _weight(c, recipe, f"{prefix}down_proj.weight", shape, downs, stored)


def _expert_pieces(
    files: TensorFiles, prefix: str, matrix: str, c: ModelConfig
) -> tuple[Piece, ...]:
    """A matrix of each expert, wherever the source has it: by itself, stacked, or gate over up."""
    rows = c.hidden_size if matrix == "w2" else c.moe_intermediate_size
    stacked = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}[matrix]
    fused = matrix != "w2" and f"{prefix}gate_up_proj.weight" in files
    pieces = []
    for expert in range(c.n_routed_experts):
        own = f"{prefix}{expert}.{matrix}.weight"
        if fused:
            source = f"{prefix}gate_up_proj.weight"
            first = (2 * expert + (matrix == "w3")) * rows
        elif f"{prefix}{stacked}.weight" in files:
            source, first = f"{prefix}{stacked}.weight", expert * rows
        else:
            source, first = own, 0
        pieces.append(Piece(source, first, rows, own))
    return tuple(pieces)


def _stored(
    files: TensorFiles, pieces: Sequence[Piece], shape: tuple[int, ...]
) -> dict[str, _Storage]:
    """How each source of these pieces, which together are of `shape`, is stored. Each has the rows
    that are taken from it, and no more. Raises ModelFormatError."""
    ends: dict[str, int] = {}
    for piece in pieces:
        ends[piece.source] = max(ends.get(piece.source, 0), piece.first + piece.rows)
    found: dict[str, _Storage] = {}
    for source, rows in ends.items():
        form = files.form(source, shape if len(shape) == 1 else (rows, shape[-1]))
        if form is None:
            dtype = files.entries[source].dtype
            # DeepSeek's formats unpacked: a few bits times a power of two, which bf16 holds.
            found[source] = (None, dtype if dtype in _FLOATS else "BF16")
        elif form.mode == "affine":
            scales = files.entries[f"{source.removesuffix('.weight')}.scales"]
            found[source] = (form, scales.dtype)
        else:
            found[source] = (form, "U8")
    return found


def _weight(
    c: ModelConfig,
    recipe: Recipe,
    name: str,
    shape: tuple[int, ...],
    pieces: Sequence[Piece],
    storage: dict[str, _Storage],
) -> Weight:
    stored, dtype = storage[pieces[0].source]
    for piece in pieces:
        if storage[piece.source] != (stored, dtype):
            raise ModelFormatError(
                f"{piece.source} is not in the format of {pieces[0].source}, beside which it "
                "belongs; download the model again"
            )
    target = target_format(recipe, name, c.num_hidden_layers, shape[-1], stored)
    specs = _specs(mlx_name(name), shape, target, dtype if target == stored else _AFFINE_SCALES)
    return Weight(name, shape, tuple(pieces), stored, target, specs)


def _specs(
    name: str, shape: tuple[int, ...], target: PackedFormat | None, dtype: str
) -> tuple[TensorSpec, ...]:
    """`dtype`: of the numbers, or of an affine weight's scales and biases."""
    if target is None:
        return (TensorSpec(name, dtype, shape),)
    path, lead = name.removesuffix(".weight"), shape[:-1]
    codes = TensorSpec(name, "U32", (*lead, shape[-1] * target.bits // 32))
    groups = (*lead, shape[-1] // target.group_size)
    if target.mode != "affine":
        return codes, TensorSpec(f"{path}.scales", "U8", groups)
    return codes, *(TensorSpec(f"{path}.{part}", dtype, groups) for part in ("scales", "biases"))
