"""The names tensors go by. In: a name of any dialect (official, transformers, transformers as it
saves, the MLX ports). Out: the official name, which is the one the rest of the engine uses; and the
way back, to the names of the MLX ports. Pure string work.
"""

import re

__all__ = ["mlx_name", "official_name"]

_PREFIXES = ("language_model.", "model.")
_STARTS = (("embed_tokens.", "embed."), ("lm_head.", "head."))  # then weight, scales or biases
_WHOLE = {
    "hc_head.hc_fn": "hc_head_fn",
    "hc_head.hc_base": "hc_head_base",
    "hc_head.hc_scale": "hc_head_scale",
    "hc_head.fn": "hc_head_fn",
    "hc_head.base": "hc_head_base",
    "hc_head.scale": "hc_head_scale",
}
# Applied in order to the part behind `layers.N.`.
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^self_attn\.", "attn."),
        (r"^mlp\.", "ffn."),
        (r"^input_layernorm\.", "attn_norm."),
        (r"^post_attention_layernorm\.", "ffn_norm."),
        (r"^(attn|ffn)_hc\.(fn|base|scale)$", r"hc_\1_\2"),
        (r"^attn\.sinks$", "attn.attn_sink"),
        (r"^attn\.q_a_norm\.", "attn.q_norm."),
        (r"^attn\.norm\.", "attn.kv_norm."),  # as transformers 5.23 saves it
        (r"^attn\.compressor\.indexer\.scorer\.", "attn.indexer."),
        (r"^attn\.compressor\.indexer\.q_b_proj\.", "attn.indexer.wq_b."),
        (r"^attn\.compressor\.indexer\.", "attn.indexer.compressor."),
        (r"compressor\.kv_norm\.", "compressor.norm."),
        (r"compressor\.position_bias$", "compressor.ape"),
        (r"compressor\.kv_proj\.", "compressor.wkv."),
        (r"compressor\.gate_proj\.", "compressor.wgate."),
        (r"^attn\.(q_a|q_b|o_a|o_b)_proj\.", r"attn.w\1."),
        (r"^attn\.kv_proj\.", "attn.wkv."),
        (r"^ffn\.gate\.e_score_correction_bias$", "ffn.gate.bias"),
        # Of stacked experts; transformers leaves `.weight` away.
        (r"^ffn\.switch_mlp\.", "ffn.experts."),
        (r"^(ffn\.experts\.(?:gate_up|gate|up|down)_proj)$", r"\1.weight"),
        (r"^(ffn\.experts\.(?:gate_up|gate|up|down)_proj)_(scales|biases)$", r"\1.\2"),
        (r"^ffn\.shared_experts\.gate_proj\.", "ffn.shared_experts.w1."),
        (r"^ffn\.shared_experts\.down_proj\.", "ffn.shared_experts.w2."),
        (r"^ffn\.shared_experts\.up_proj\.", "ffn.shared_experts.w3."),
    )
)
# The way back. Stacked experts are called what they are in the engine: ffn.experts.gate_up_proj.
_TO_MLX = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^embed\.", "embed_tokens."),
        (r"^hc_head_(fn|base|scale)$", r"hc_head.\1"),
        (r"\.hc_(attn|ffn)_(fn|base|scale)$", r".\1_hc.\2"),
        (r"\.ffn\.gate\.bias$", ".ffn.gate.e_score_correction_bias"),
        (r"\.ffn\.experts\.", ".ffn.switch_mlp."),
        (r"\.shared_experts\.w1\.", ".shared_experts.gate_proj."),
        (r"\.shared_experts\.w2\.", ".shared_experts.down_proj."),
        (r"\.shared_experts\.w3\.", ".shared_experts.up_proj."),
    )
)
_LAYER = re.compile(r"^(layers\.\d+\.)(.*)$")


def official_name(name: str) -> str:
    """The official name of a tensor; a name of no known dialect comes back as it is."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = _WHOLE.get(name, name)
    for start, official in _STARTS:
        if name.startswith(start):
            name = official + name.removeprefix(start)
    layer = _LAYER.match(name)
    if layer is None:
        return name
    rest = layer[2]
    for pattern, replacement in _RULES:
        rest = pattern.sub(replacement, rest)
    return layer[1] + rest


def mlx_name(name: str) -> str:
    """What the MLX ports call the tensor of an official name."""
    if name.startswith("head."):
        return f"lm_{name}"
    for pattern, replacement in _TO_MLX:
        name = pattern.sub(replacement, name)
    return f"model.{name}"
