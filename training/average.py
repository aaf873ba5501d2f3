"""Averages the weights of exports of one run: `python -m training.average OUT A B …`.

In: directories of the same config. Out: OUT, a checkpoint directory like them. The mean of two late
checkpoints is better than either, as if the learning rate had fallen further.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"


def average(models: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each weight, in its dtype; hash tables are those of the first."""
    return {
        name: torch.stack([model[name].float() for model in models]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in models[0].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    arguments = parser.parse_args()
    shutil.copytree(arguments.models[0], arguments.out)
    mean = average([load_file(directory / WEIGHTS) for directory in arguments.models])
    save_file(mean, arguments.out / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
