"""Which release of V4 a checkpoint is, and what follows: the levels of thinking it was trained with
and how it is to be sampled. In: the directory's config.json, generation_config.json and the names
of its tensors; never the directory's own name. Out: a `Version`, or one `ModelFormatError` line.
It reads no tensor data.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ds4_agent.engine.api import Efforts, Sampling
from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.weights.files import read_json, tensor_names

__all__ = ["NANO_VERSION", "Version", "read_version", "version_of"]

# What DeepSeek's own request layer samples an agent with; generation_config.json says 1.0 and 1.0,
# which is for a chat without tools.
_AGENT = Sampling(temperature=1.0, top_p=0.95)


@dataclass(frozen=True)
class Version:
    """A release. `name` is for people; `thinking` is the level where none is asked for."""

    name: str
    efforts: Efforts
    thinking: str
    profile: str
    sampling: Sampling


def _efforts(**levels: str | None) -> Efforts:
    return MappingProxyType({"off": None, **levels})


# The preview's one text is that of "high" today, and it got it at "max"; "high" was plain.
_PREVIEW = Version(
    "V4 Flash preview", _efforts(high="low", max="high"), thinking="high", profile="lean",
    sampling=_AGENT,
)  # fmt: skip
_0731 = Version(
    "V4 Flash 0731", _efforts(low="low", high="high", max="max"), thinking="low", profile="lean",
    sampling=_AGENT,
)  # fmt: skip
# Neither its config nor its tensors tell: the later release, which is the usual one.
_UNTOLD = replace(_0731, name="V4")
NANO_VERSION = Version(
    "nano", _efforts(), thinking="off", profile="nano", sampling=Sampling(temperature=0.0)
)


def read_version(directory: Path) -> Version:
    """The release of a checkpoint whose config.json is there, sampled as its files say."""
    config = read_json(directory / "config.json")
    version = version_of(config, tensor_names(directory))
    wish = directory / "generation_config.json"
    if version is NANO_VERSION or not wish.is_file():
        return version
    return replace(version, sampling=_sampling(wish, read_json(wish), version.sampling))


def version_of(config: Mapping[str, Any], tensors: Iterable[str]) -> Version:
    """The release that a config and the names of the tensors tell of. The draft layers come first:
    a config may be another's, tensors are what there is."""
    if config.get("ds4_nano", False):
        return NANO_VERSION
    drafts = [name for name in tensors if "mtp." in name]
    if any("mtp.0.main_proj." in name or "mtp.2." in name for name in drafts):
        return _0731
    if any("mtp.0.e_proj." in name for name in drafts):
        return _PREVIEW
    if any(key.startswith("dspark_") for key in config):
        return _0731
    # A ratio for each layer and each draft layer: the preview has one of these, 0731 three.
    ratios, layers = config.get("compress_ratios"), config.get("num_hidden_layers")
    stages = len(ratios) - layers if isinstance(ratios, list) and isinstance(layers, int) else 0
    return {1: _PREVIEW, 3: _0731}.get(stages, _UNTOLD)


def _sampling(path: Path, wish: Mapping[str, Any], default: Sampling) -> Sampling:
    """What a maker asks for. The published 1.0 and 1.0 ask for nothing."""
    if wish.get("do_sample") is False:
        return Sampling(temperature=0.0)
    temperature = _number(path, wish, "temperature", 1.0, 100.0)
    top_p = _number(path, wish, "top_p", 1.0, 1.0)
    return replace(
        default,
        temperature=temperature,
        top_p=default.top_p if top_p == 1 else top_p,
        min_p=_number(path, wish, "min_p", 0.0, 1.0),
    )


def _number(path: Path, wish: Mapping[str, Any], key: str, default: float, most: float) -> float:
    value = default if wish.get(key) is None else wish[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ModelFormatError(f"{path}: {key} must be from 0 to {most:g}, not {value!r}")
    return float(value)
