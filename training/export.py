"""Writes a checkpoint as the product loads it; `python -m training.export RUN` installs a run.

In: weights by transformers' names. Out: model.safetensors (float16; norms, hyper-connections,
sinks and biases float32, hash tables int64) and config.json, each put in place at once.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from training.config import RUNS, NanoConfig, transformers_config
from training.tokenizer import INSTALLED


def stored(name: str, weight: Tensor) -> Tensor:
    """The tensor as stored: what the reference keeps in float32 stays so."""
    weight = weight.detach()
    if not weight.is_floating_point():
        return weight.clone()
    keeps_float32 = weight.dim() < 2 or "hc" in name or "position_bias" in name
    return weight.to(torch.float32 if keeps_float32 else torch.float16).contiguous().clone()


def export(weights: dict[str, Tensor], config: NanoConfig, folder: Path) -> None:
    """Write a directory that both the product and transformers load: weights, config, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.safetensors.partial"
    tensors = {name: stored(name, weight) for name, weight in weights.items()}
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")
    # The mark by which the product knows nano: its own prompt, greedy, no thinking.
    keys = transformers_config(config) | {"ds4_nano": True}
    (folder / "config.json").write_text(json.dumps(keys, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(INSTALLED, folder / "tokenizer.json")


def install(run: str, target: Path) -> None:
    """Copy the last export of a run beside the bundled tokenizer."""
    source = RUNS / run / "export"
    if not (source / "model.safetensors").exists():
        raise SystemExit(f"run {run} has no export in {source}; train it first")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        partial = target / f"{name}.partial"
        shutil.copyfile(source / name, partial)
        partial.replace(target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="name of a folder in training/runs")
    install(parser.parse_args().run, INSTALLED.parent)


if __name__ == "__main__":
    main()
