"""The two JSON files that make converted shards a checkpoint. In: the source's config.json and the
outline. Out: their bytes, config.json with MLX's `quantization` map. It touches no disk.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ds4_agent.engine.weights.shards import Shard

__all__ = ["config_bytes", "index_bytes"]


def config_bytes(keys: Mapping[str, Any], shards: Sequence[Shard]) -> bytes:
    """The source's keys, but for how the weights are stored: a default, and the format of each
    module that has another one; under both names by which engines look for it."""
    own = {k: v for k, v in keys.items() if k not in ("quantization", "quantization_config")}
    own["num_nextn_predict_layers"] = 0  # draft layers are left out
    forms = {w.path: w.target for s in shards for w in s.weights if w.target is not None}
    if forms:
        default = Counter(forms.values()).most_common(1)[0][0]
        quantization: dict[str, Any] = asdict(default)
        quantization |= {path: asdict(form) for path, form in forms.items() if form != default}
        own |= {"quantization": quantization, "quantization_config": quantization}
    return json.dumps(own, indent=2).encode() + b"\n"


def index_bytes(shards: Sequence[Shard]) -> bytes:
    """Of model.safetensors.index.json."""
    places = {spec.name: shard.file for shard in shards for spec in shard.specs}
    total = sum(spec.bytes for shard in shards for spec in shard.specs)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    return json.dumps(index, indent=2).encode() + b"\n"
