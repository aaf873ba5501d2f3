"""Tiny models of every kind on an engine thread, and stores of their states in a real directory."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.keys import root_key
from ds4_agent.engine.kvstore.snapshot import Layout
from ds4_agent.engine.kvstore.store import KvStore
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.prefill import prefill
from ds4_agent.engine.weights.checkpoint import fingerprint, load_model
from ds4_agent.engine.worker import Worker

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
CASES = ("mixed", "yarn", "nano", "simulated", "mixed-mlx", "mixed-bf16", "simulated-bf16")
BUDGET = 1 << 30
ROPE = 32


def tiny_module():
    """tests/golden/tiny.py, which is no installed package."""
    spec = importlib.util.spec_from_file_location("kvstore_tiny", GOLDEN / "tiny.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Case:
    """A model on its engine thread."""

    name: str
    model: object
    worker: Worker
    layout: Layout
    fingerprint: str

    def tokens(self, count, seed=3):
        return np.random.default_rng(seed).integers(0, 97, count).tolist()

    def prefill(self, tokens, state=None, chunk=256):
        """(logits [vocab], state) behind `tokens`, evaluated."""

        def work():
            logits, after = prefill(
                self.model, tokens, state or self.model.init_state(), chunk=chunk
            )
            return np.array(logits), after

        return self.worker.call(work)

    def greedy(self, logits, state, count):
        taken = [int(np.argmax(logits))]
        while len(taken) < count:
            logits, state = self.prefill(taken[-1:], state)
            taken.append(int(np.argmax(logits)))
        return taken

    def leaves(self, state):
        """Of every leaf its shape, kind and bits, and the partition of the rows they stand in."""

        def work():
            found = []
            for layer in state.layers:
                for rows in (layer.rows, layer.index_rows):
                    found.append(None if rows is None else len(rows.full))
                found += [(tuple(x.shape), _raw(x).tobytes()) for x in layer.leaves()]
                found.append([type(x) for x in layer.leaves()])
            return state.position, found

        return self.worker.call(work)

    def store(self, directory, *, fingerprint=None):
        simulated = self.model.config.kv_simulation
        root = root_key(fingerprint or self.fingerprint, self.layout.dtype, kv_simulation=simulated)
        return KvStore(Disk(directory, BUDGET), root, self.layout, self.worker.call)


def _raw(x):
    return np.array(x.view(mx.uint16) if x.dtype == mx.bfloat16 else x)


@pytest.fixture(scope="session")
def load_case(tmp_path_factory):
    tiny, cases = tiny_module(), {}

    def load(name):
        if name in cases:
            return cases[name]
        kind, _, short = name.partition("-")
        config = tiny.MODELS["mixed" if kind == "simulated" else kind]
        if kind == "simulated":  # heads wide enough for the blocks of the formats
            config = {**config, "head_dim": 64 + ROPE, "index_head_dim": 32}
            config["partial_rotary_factor"] = ROPE / (64 + ROPE)
        directory = tmp_path_factory.mktemp(name)
        tiny.write_checkpoint(directory, config, tiny.weights(config, 1))
        dtype = mx.bfloat16 if short == "bf16" else mx.float32
        worker = Worker()
        model = worker.call(load_model, directory, dtype=dtype, kv_simulation=kind == "simulated")
        if short == "mlx":  # as on a GPU, in fp32
            model = Model(model.config, model._parameters, in_numpy=False)
        dtype_name = "bfloat16" if short == "bf16" else "float32"
        layout = Layout(model.config, dtype_name, in_numpy=model.is_in_numpy)
        cases[name] = Case(name, model, worker, layout, fingerprint(directory))
        return cases[name]

    yield load
    for case in cases.values():
        case.worker.close()


@pytest.fixture(params=CASES)
def case(request, load_case):
    """Every tiny model in turn."""
    return load_case(request.param)


@pytest.fixture
def mixed(load_case):
    """The model with every kind of layer."""
    return load_case("mixed")


@pytest.fixture
def opened():
    """`opened(store)`: closed after the test."""
    stores = []

    def keep(store):
        stores.append(store)
        return store

    yield keep
    for store in stores:
        store.close()


@pytest.fixture
def small_extents(monkeypatch):
    """Extents of three blocks, so that a short prompt has several."""
    from ds4_agent.engine.kvstore import store

    monkeypatch.setattr(store, "EXTENT_BLOCKS", 3)


@pytest.fixture
def small_blocks(monkeypatch):
    """Rows parted as a long prompt parts them: blocks of 8 and 32 rows."""
    from ds4_agent.engine.model import rows

    monkeypatch.setattr(rows, "OPEN_ROWS", 8)
    monkeypatch.setattr(rows, "FULL_ROWS", 32)
