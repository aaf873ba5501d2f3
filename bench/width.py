"""V4 Flash at its real width, with random weights in the layouts `q2` and `native`: prefill and
decode a layer, bytes read a token, KV, memory, decode at 1K to 1M tokens, and what 43 layers would
need; `fp32`: the attention alone, in numpy. `python -m bench width` from the repository root: six
minutes on two cores, up to 9 GB of memory. Each layout has a process, `python -m bench.width
LAYOUT`, which prints one JSON object.
"""

import json
import subprocess
import sys

from bench.figures import table
from bench.machine import machine
from ds4_agent.engine import blas

__all__ = ["main", "rows"]

LAYOUTS = ("q2", "native", "fp32")
BAR = 3.0  # decode at a million tokens / at 4,096


def main() -> None:
    figures = {layout: _measured(layout) for layout in LAYOUTS}
    print(machine())
    print("Random weights. Of 43 layers: the sum of what single layers take, an extrapolation.\n")
    print(table(("figure", *LAYOUTS, "bar", ""), rows(figures)))


def _measured(layout: str) -> dict[str, float]:
    print(f"bench: {layout} at full width …", file=sys.stderr)
    command = [sys.executable, "-m", "bench.width", layout]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {layout} failed; see above")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def rows(figures: dict[str, dict[str, float]]) -> list[list[str]]:
    """Lines of the table: a label, each layout's figure, and the bar where the label gives one."""
    lines = []
    for label in next(iter(figures.values())):
        values = [own.get(label) for own in figures.values()]
        bar = ["", ""]
        if label.startswith("whole step"):
            is_met = max(value for value in values if value is not None) <= BAR
            bar = [f"<= {BAR:g}", "met" if is_met else "MISSED"]
        lines.append([label, *map(_shown, values), *bar])
    return lines


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    blas.preload()  # before anything imports MLX
    from bench.wide_layers import measure, measure_fp32

    print(json.dumps(measure_fp32() if sys.argv[1] == "fp32" else measure(sys.argv[1])))
