"""Loads the draft layers of an official checkpoint. In: its directory and the model they belong to.
Out: a `DraftLayer`, or None where there is none that this engine computes: the preview's `mtp.0` is
one, the DSpark stages of 0731 (a block of ids at once, from three layers of the model) are not yet.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import mlx.core as mx

from ds4_agent.engine.model.arrays import by_columns, on_host
from ds4_agent.engine.model.draft import DraftLayer
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.weights.assemble import arrays_of, layer_weights
from ds4_agent.engine.weights.tensors import TensorFiles

__all__ = ["draft_kind", "load_draft"]

PREFIX = "mtp.0."


def draft_kind(files: TensorFiles) -> Literal["mtp", "dspark", ""]:
    """Which draft layers a checkpoint has, "" for none."""
    if f"{PREFIX}e_proj.weight" in files:
        return "mtp"
    return "dspark" if f"{PREFIX}main_proj.weight" in files else ""


def load_draft(directory: Path, model: Model) -> DraftLayer | None:
    """The layer, evaluated. Raises ModelFormatError for a damaged one."""
    files, whole = TensorFiles(directory), model.config
    if draft_kind(files) != "mtp":
        return None
    c = replace(whole, num_hidden_layers=1, layer_kinds=("sliding",), hash_routed=(False,))
    n, hidden, dtype = c.hc_mult, c.hidden_size, model.dtype
    head_fn = files.floats(f"{PREFIX}hc_head_fn", (n, n * hidden), mx.float32)
    parameters = replace(
        model.parameters,
        layers=(layer_weights(files, PREFIX, 0, c, dtype),),
        head_fn=head_fn * files.floats(f"{PREFIX}hc_head_scale", (1,), mx.float32),
        head_base=files.floats(f"{PREFIX}hc_head_base", (n,), mx.float32),
        norm=files.floats(f"{PREFIX}norm.weight", (hidden,), mx.float32),
    )
    mx.eval(arrays_of(parameters))
    own = Model(c, parameters, in_numpy=model.is_in_numpy)
    layer = DraftLayer(
        own,
        files.weight(f"{PREFIX}e_proj.weight", (hidden, hidden), dtype),
        files.weight(f"{PREFIX}h_proj.weight", (hidden, hidden), dtype),
        files.floats(f"{PREFIX}enorm.weight", (hidden,), mx.float32),
        files.floats(f"{PREFIX}hnorm.weight", (hidden,), mx.float32),
    )
    mx.eval(_parts(layer.e_proj), _parts(layer.h_proj), layer.e_norm, layer.h_norm)
    if not own.is_in_numpy:
        return layer
    turned = by_columns(on_host((layer.e_proj, layer.h_proj, layer.e_norm, layer.h_norm)))
    return DraftLayer(own, *turned)


def _parts(weight: object) -> list[mx.array]:
    return [weight] if isinstance(weight, mx.array) else arrays_of(weight)
