"""A tiny checkpoint directory that loads, to be spoiled, and the official names of its tensors."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

HERE = Path(__file__).parent
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "tiny.py"
FILE = "model.safetensors"


@dataclass
class Checkpoint:
    """A directory and what `write` puts into it; both dictionaries may be spoiled first."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, Any]

    def write(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, self.directory / FILE, metadata={"format": "pt"})
        self.write_config(json.dumps(self.config))
        return self.directory

    def write_config(self, text):
        (self.directory / "config.json").write_text(text, encoding="utf-8")

    def write_shards(self, count):
        """The same as `count` files and an index, as large checkpoints come."""
        self.write()
        (self.directory / FILE).unlink()
        names = sorted(self.tensors)
        places = {name: f"model-{i % count + 1:05}.safetensors" for i, name in enumerate(names)}
        for shard in set(places.values()):
            own = {name: self.tensors[name] for name in names if places[name] == shard}
            save_file(own, self.directory / shard)
        index = {"metadata": {}, "weight_map": places}
        (self.directory / f"{FILE}.index.json").write_text(json.dumps(index), encoding="utf-8")
        return self.directory


def loaded(name, path):
    """A Python file that is in no installed package."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def small():
    """tests/golden/tiny.py."""
    return loaded("golden_tiny", GOLDEN)


@pytest.fixture(scope="session")
def drawn(small):
    """(config, tensors) of a tiny model with every kind of layer."""
    return small.MODELS["mixed"], small.weights(small.MODELS["mixed"], 5)


@pytest.fixture
def checkpoint(drawn, tmp_path):
    config, tensors = drawn
    return Checkpoint(tmp_path / "model", dict(config), dict(tensors))


@pytest.fixture(scope="session")
def names():
    """official.py beside this file."""
    return loaded("weights_official", HERE / "official.py")


@pytest.fixture
def official(checkpoint, names, tmp_path):
    """The same model as an official checkpoint."""
    return Checkpoint(
        tmp_path / "official",
        names.official_config(checkpoint.config),
        names.official_tensors(checkpoint.tensors),
    )


@pytest.fixture(scope="session")
def dialects():
    """dialects.py beside this file."""
    return loaded("weights_dialects", HERE / "dialects.py")


@pytest.fixture(scope="session")
def published_headers(tmp_path_factory):
    """The published V4 Flash as a directory of headers; its data are holes."""
    module = loaded("weights_published", HERE / "published.py")
    return module.write(tmp_path_factory.mktemp("published") / "V4")


@pytest.fixture(scope="session")
def wide(small, dialects, names):
    """(official config, official tensors) of a tiny model whose rows are whole groups of 32, and
    whose FP8 blocks are cut at the edges."""
    config = {**small.MODELS["mixed"], **dialects.WIDE}
    return names.official_config(config), names.official_tensors(small.weights(config, 7))
