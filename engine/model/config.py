"""The published configuration keys as one frozen value. In: the JSON of a checkpoint's config.json,
official or transformers dialect. Out: `ModelConfig`, checked, or one `ModelFormatError` line.
It never touches a disk and never guesses a size that the file does not give.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ds4_agent.engine.errors import ModelFormatError

__all__ = ["BLOCK_TOKENS", "LayerKind", "ModelConfig", "RopeScaling"]

LayerKind = Literal["sliding", "csa", "hca"]

# The least common multiple of the published compression ratios: prefill chunks end on it, and
# the store on disk cuts rows by it.
BLOCK_TOKENS = 128

_KIND_OF_LAYER_TYPE: dict[str, LayerKind] = {
    "sliding_attention": "sliding",
    "compressed_sparse_attention": "csa",
    "heavily_compressed_attention": "hca",
}
_KIND_OF_RATIO: dict[int, LayerKind] = {0: "sliding", 4: "csa", 128: "hca"}


@dataclass(frozen=True)
class RopeScaling:
    """YaRN of the compressed layers. The published models do not scale cos and sin (factor 1)."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a V4 model that is not a weight. Field names are the published keys."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    qk_rope_head_dim: int
    q_lora_rank: int
    o_lora_rank: int
    o_groups: int
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    sliding_window: int
    layer_kinds: tuple[LayerKind, ...]
    hash_routed: tuple[bool, ...]
    csa_ratio: int = 4
    hca_ratio: int = 128
    routed_scaling_factor: float = 1.5
    swiglu_limit: float = 10.0
    rms_norm_eps: float = 1e-6
    hc_mult: int = 4
    hc_sinkhorn_iters: int = 20
    hc_eps: float = 1e-6
    rope_theta: float = 10000.0
    compress_rope_theta: float = 160000.0
    rope_scaling: RopeScaling | None = None
    max_position_embeddings: int = 1048576
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 0
    eos_token_id: int | None = 1
    kv_simulation: bool = False
    """Round KV rows to FP8 and index queries and keys to FP4, as in the training of the weights."""

    def __post_init__(self) -> None:
        _check(self)

    def ratio(self, layer: int) -> int:
        """Tokens per compressed row of a layer; 0 where it has none."""
        return {"sliding": 0, "csa": self.csa_ratio, "hca": self.hca_ratio}[self.layer_kinds[layer]]

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, kv_simulation: bool = False) -> "ModelConfig":
        """Read either dialect. Raises ModelFormatError naming the key that is missing or wrong."""
        if data.get("model_type") != "deepseek_v4":
            raise ModelFormatError(
                f"config.json: model_type is {data.get('model_type')!r}, not 'deepseek_v4'; "
                "give the directory of a DeepSeek V4 Flash model"
            )
        _refuse_variants(data)
        layers = _integer(data, "num_hidden_layers")
        kinds, csa_ratio, hca_ratio = _layer_kinds(data, layers)
        main_theta, compress_theta, scaling = _rope(data)
        plain = {
            field.name: _integer(data, field.name)
            for field in dataclasses.fields(cls)
            if field.type is int and field.default is dataclasses.MISSING
            if field.name not in ("num_hidden_layers", "qk_rope_head_dim")
        }
        optional = {
            field.name: _number(data, field.name, field.default)
            for field in dataclasses.fields(cls)
            if field.type in (int, float) and field.default is not dataclasses.MISSING
            if field.name not in ("csa_ratio", "hca_ratio", "rope_theta", "compress_rope_theta")
        }
        return cls(
            **plain,
            **optional,
            num_hidden_layers=layers,
            qk_rope_head_dim=_rope_head_dim(data, plain["head_dim"]),
            layer_kinds=kinds,
            csa_ratio=csa_ratio,
            hca_ratio=hca_ratio,
            hash_routed=_hash_routed(data, layers),
            rope_theta=main_theta,
            compress_rope_theta=compress_theta,
            rope_scaling=scaling,
            tie_word_embeddings=bool(data.get("tie_word_embeddings", False)),
            bos_token_id=_token_id(data, "bos_token_id"),
            eos_token_id=_token_id(data, "eos_token_id"),
            kv_simulation=kv_simulation,
        )


def _integer(data: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = default if data.get(key) is None else data[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelFormatError(f"config.json: {key} must be a positive integer, not {value!r}")
    return value


def _number(data: Mapping[str, Any], key: str, default: Any) -> Any:
    if isinstance(default, int):
        return _integer(data, key, default)
    value = default if data.get(key) is None else data[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ModelFormatError(f"config.json: {key} must be a positive number, not {value!r}")
    return type(default)(value)


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under `key`; empty where there is none."""
    value = data.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ModelFormatError(f"config.json: {key} must be an object, not {value!r}")
    return value or {}


def _sequence(data: Mapping[str, Any], key: str) -> list[Any] | None:
    """The list of names or numbers under `key`; None where there is none."""
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(v, str | int) for v in value):
        raise ModelFormatError(f"config.json: {key} must be a list of one value a layer")
    return list(value)


def _token_id(data: Mapping[str, Any], key: str) -> int | None:
    value = data.get(key)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[0]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ModelFormatError(f"config.json: {key} must be a token id, not {value!r}")
    return value


def _refuse_variants(data: Mapping[str, Any]) -> None:
    """Keys that change the mathematics and have one published value: any other is refused."""
    published: dict[str, Any] = {
        "scoring_func": "sqrtsoftplus",
        "hidden_act": "silu",
        "norm_topk_prob": True,
        "n_shared_experts": 1,
        "num_key_value_heads": 1,
        "attention_bias": False,
        "mlp_bias": False,
    }
    for key, value in published.items():
        if data.get(key, value) != value:
            raise ModelFormatError(
                f"config.json: {key} is {data[key]!r}; this engine computes {key} {value!r} only"
            )


def _layer_kinds(data: Mapping[str, Any], layers: int) -> tuple[tuple[LayerKind, ...], int, int]:
    rates = {"compress_rate_csa": 4, "compress_rate_hca": 128, **data}
    named = _mapping(data, "compress_rates")
    csa = _integer(named, "compressed_sparse_attention", _integer(rates, "compress_rate_csa"))
    hca = _integer(named, "heavily_compressed_attention", _integer(rates, "compress_rate_hca"))
    types, ratios = _sequence(data, "layer_types"), _sequence(data, "compress_ratios")
    if types is not None:
        unknown = [kind for kind in types if kind not in _KIND_OF_LAYER_TYPE]
        if unknown or len(types) < layers:
            raise ModelFormatError(
                f"config.json: layer_types must name {layers} layers, each one of "
                f"{', '.join(_KIND_OF_LAYER_TYPE)}; got {unknown or len(types)}"
            )
        return tuple(_KIND_OF_LAYER_TYPE[kind] for kind in types[:layers]), csa, hca
    if ratios is None:
        raise ModelFormatError("config.json: compress_ratios (or layer_types) is missing")
    # The published list also covers the draft stages behind the last layer.
    if len(ratios) < layers or any(ratio not in _KIND_OF_RATIO for ratio in ratios):
        raise ModelFormatError(
            f"config.json: compress_ratios must give 0, 4 or 128 for each of {layers} layers; "
            f"got {list(ratios)!r}"
        )
    return tuple(_KIND_OF_RATIO[ratio] for ratio in ratios[:layers]), 4, 128


def _hash_routed(data: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    types = _sequence(data, "mlp_layer_types")
    if types is not None:
        if len(types) < layers or any(kind not in ("hash_moe", "moe") for kind in types):
            raise ModelFormatError(
                f"config.json: mlp_layer_types must name {layers} layers, 'hash_moe' or 'moe'"
            )
        return tuple(kind == "hash_moe" for kind in types[:layers])
    count = data.get("num_hash_layers", 3)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ModelFormatError(f"config.json: num_hash_layers must be a count, not {count!r}")
    return tuple(layer < count for layer in range(layers))


def _rope(data: Mapping[str, Any]) -> tuple[float, float, RopeScaling | None]:
    """(theta of sliding layers, theta of compressed layers, YaRN of the compressed layers)."""
    parameters = _mapping(data, "rope_parameters")
    main, compress = parameters.get("main"), parameters.get("compress")
    if isinstance(main, Mapping) and isinstance(compress, Mapping):
        if main.get("rope_type", "default") != "default":
            raise ModelFormatError("config.json: rope_parameters.main must be of type 'default'")
        theta = _number(main, "rope_theta", 10000.0)
        return theta, _number(compress, "rope_theta", 160000.0), _scaling(compress)
    scaling = _mapping(data, "rope_scaling") or parameters
    return (
        _number(data, "rope_theta", 10000.0),
        _number(data, "compress_rope_theta", 160000.0),
        _scaling(scaling),
    )


def _scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "yarn":
        raise ModelFormatError(f"config.json: rope type {kind!r} is not 'yarn' or 'default'")
    if rope.get("attention_factor", 1.0) not in (None, 1, 1.0):
        raise ModelFormatError("config.json: attention_factor of the rope scaling must be 1")
    return RopeScaling(
        factor=float(_number(rope, "factor", 1.0)),
        original_max_position_embeddings=_integer(rope, "original_max_position_embeddings"),
        beta_fast=float(_number(rope, "beta_fast", 32.0)),
        beta_slow=float(_number(rope, "beta_slow", 1.0)),
    )


def _rope_head_dim(data: Mapping[str, Any], head_dim: int) -> int:
    if "qk_rope_head_dim" in data:
        return _integer(data, "qk_rope_head_dim")
    return int(head_dim * _number(data, "partial_rotary_factor", 0.125))


def _check(config: ModelConfig) -> None:
    """Relations between sizes that the computation relies on."""
    c = config
    rules = (
        (len(c.layer_kinds) == c.num_hidden_layers, "one attention kind for each layer"),
        (len(c.hash_routed) == c.num_hidden_layers, "one routing kind for each layer"),
        (c.head_dim % 2 == 0 and c.index_head_dim % 2 == 0, "even head dims"),
        (c.qk_rope_head_dim % 2 == 0, "an even qk_rope_head_dim"),
        (c.qk_rope_head_dim <= min(c.head_dim, c.index_head_dim), "rope dims within the heads"),
        (c.num_attention_heads % c.o_groups == 0, "o_groups dividing num_attention_heads"),
        (c.num_experts_per_tok <= c.n_routed_experts, "num_experts_per_tok ≤ n_routed_experts"),
        (BLOCK_TOKENS % c.csa_ratio == 0, f"a CSA ratio dividing {BLOCK_TOKENS}"),
        (BLOCK_TOKENS % c.hca_ratio == 0, f"an HCA ratio dividing {BLOCK_TOKENS}"),
        (c.sliding_window >= 2, "sliding_window ≥ 2"),
    )
    for holds, sentence in rules:
        if not holds:
            raise ModelFormatError(f"config.json: this engine needs {sentence}")
    if c.kv_simulation and (
        (c.head_dim - c.qk_rope_head_dim) % 64 or c.index_head_dim % 32 or _odd_part(c) != 1
    ):
        raise ModelFormatError(
            "kv_simulation needs head_dim - qk_rope_head_dim in blocks of 64 and an index_head_dim "
            "that is a power of two of at least 32"
        )


def _odd_part(config: ModelConfig) -> int:
    size = config.index_head_dim
    return size // (size & -size)
