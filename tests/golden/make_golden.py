"""Writes the golden vectors beside this file: `python tests/golden/make_golden.py`. For each tiny
model the seed, a prompt, the oracle's logits after each token and its greedy continuation. Needs
torch and transformers (`make oracle`); the tests that read the vectors need neither.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

HERE = Path(__file__).resolve().parent
TOKENS = 450
CONTINUATION = 24
LEAST_GAP = 2e-5  # of index scores: well above fp32 noise, so every machine chooses alike
LEAST_MARGIN = 1e-3  # of logits


def load(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{name}.py is not beside {__file__}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    tiny, oracle = load("tiny"), load("oracle")
    for name, config in tiny.MODELS.items():
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


if __name__ == "__main__":
    main()
