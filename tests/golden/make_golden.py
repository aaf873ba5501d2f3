"""Writes the golden vectors beside this file: `python tests/golden/make_golden.py [NAME…]`. For
each tiny model the seed, a prompt, the oracle's logits after each token and its greedy
continuation; for each layout of a published checkpoint (dialects.npz) the logits of the model
unpacked. Needs torch and transformers (`make oracle`); the tests that read the vectors do not.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
TOKENS = 450
CONTINUATION = 24
LEAST_GAP = 2e-5  # of index scores: well above fp32 noise, so every machine chooses alike
LEAST_MARGIN = 1e-3  # of logits
DIALECT_TOKENS, DIALECT_STEP = 160, 8  # of which every eighth token's logits are kept


def load(name: str, folder: Path = HERE) -> ModuleType:
    """A module of a folder which is no package."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{name}.py is not in {folder}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main(wanted: list[str]) -> None:
    tiny, oracle = load("tiny"), load("oracle")
    for name, config in tiny.MODELS.items():
        if not wanted or name in wanted:
            write_model(name, config, tiny, oracle)
    if not wanted or "dialects" in wanted:
        write_dialects(tiny, oracle)


def write_model(name: str, config: dict[str, Any], tiny: ModuleType, oracle: ModuleType) -> None:
    for seed in range(100):
        ids = tiny.prompt(config, TOKENS, seed)
        run = oracle.Oracle(config, tiny.weights(config, seed)).run(ids, CONTINUATION)
        if run.index_gap > LEAST_GAP and run.token_gap > LEAST_MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed below 100 decides clearly enough")
    np.savez(
        HERE / f"{name}.npz",
        seed=np.int64(seed),
        ids=np.array(ids, dtype=np.int32),
        logits=run.logits,
        continuation=np.array(run.continuation, dtype=np.int32),
    )
    print(f"{name}: seed {seed}, index gap {run.index_gap:.1e}, margin {run.token_gap:.1e}")


def write_dialects(tiny: ModuleType, oracle: ModuleType) -> None:
    dialects = load("dialects", HERE.parent / "engine" / "weights")
    found: dict[str, Any] = {}
    for name in dialects.LAYOUTS:
        config = dialects.sizes_of(tiny, name)
        for seed in range(100):
            with tempfile.TemporaryDirectory() as place:
                plain = dialects.written(tiny, name, seed, Path(place) / name)
            weights = dialects.official.transformers_tensors(plain)
            ids = tiny.prompt(config, DIALECT_TOKENS, seed)
            run = oracle.Oracle(config, weights).run(ids, 0)
            if run.index_gap > LEAST_GAP:
                break
        else:
            raise SystemExit(f"{name}: no seed below 100 decides clearly enough")
        found[f"{name}/seed"] = np.int64(seed)
        found[f"{name}/logits"] = run.logits[DIALECT_STEP - 1 :: DIALECT_STEP]
        print(f"{name}: seed {seed}, index gap {run.index_gap:.1e}")
    np.savez(HERE / "dialects.npz", tokens=np.int64(DIALECT_TOKENS), **found)


if __name__ == "__main__":
    main(sys.argv[1:])
