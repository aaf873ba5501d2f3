"""Makes the bundled model from nothing: `python -m training` (`make nano-train`).

Writes the shards that are missing, trains the run `nano` (from its last checkpoint when it was
interrupted), and installs its export into engine/nano/. Options go to `training.train`.
"""

from __future__ import annotations

import subprocess
import sys

from training.config import RUNS
from training.train import options

SHARDS = 24
MINUTES = "480"


def main() -> None:
    wanted = sys.argv[1:] or ["--minutes", MINUTES]
    options().parse_args(["nano", *wanted])  # a wrong option, or --help, ends here and not later
    data = RUNS / "data"
    for number in range(SHARDS):
        if not (data / f"train-{number:03}.npz").exists():
            run("training.tasks.generate", "--first", str(number), "--episodes", "6000")
    if not (data / "held-000.npz").exists():
        run("training.tasks.generate", "--held", "--episodes", "1500")
    run("training.train", "nano", *wanted)
    run("training.export", "nano")


def run(module: str, *arguments: str) -> None:
    """One of training's commands, in a process of its own; ends this one when it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
