"""Draws the loss of a run: `python -m training.curve RUN OUT.svg`.

In: training/runs/RUN/log.jsonl. Out: an SVG of the mean loss of the tokens the model chooses, over
the tokens trained, on logarithmic axes, with the learning rate's factor below.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from training.config import RUNS

WIDTH, HEIGHT, LEFT, TOP, LOSS_HEIGHT, GAP = 760, 430, 64, 34, 270, 34
RIGHT, RATE_HEIGHT = 20, 46
INK, LINE, GRID = "#57606a", "#0969da", "#d0d7de"

Point = tuple[float, float, float]  # tokens, loss, factor of the rates


def points(log: Path) -> list[Point]:
    """What the log says of each logged step. Of a step that was trained again the last counts."""
    steps: dict[int, Point] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "loss" in entry and entry["tokens"] > 0:
            steps[entry["step"]] = (entry["tokens"], entry["loss"], entry["rate"])
    return [steps[step] for step in sorted(steps)]


def curve(run: Sequence[Point], title: str) -> str:
    """The picture as SVG text."""
    tokens, losses, rates = zip(*run, strict=True)
    low, high = math.floor(math.log10(min(losses))), math.ceil(math.log10(max(losses)))
    first, last = math.log10(tokens[0]), math.log10(tokens[-1])
    bottom = TOP + LOSS_HEIGHT

    def x(count: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(count) - first) / (last - first)

    def y(loss: float) -> float:
        return bottom - LOSS_HEIGHT * (math.log10(loss) - low) / (high - low)

    def y_rate(factor: float) -> float:
        return bottom + GAP + RATE_HEIGHT * (1 - factor)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 20, title),
    ]
    for power in range(low, high + 1):
        parts += [_rule(LEFT, y(10**power), WIDTH - RIGHT, y(10**power))]
        parts += [_text(LEFT - 8, y(10**power) + 4, f"{10**power:g}", "end")]
    for power in range(math.ceil(first), math.floor(last) + 1):
        parts += [_rule(x(10**power), TOP, x(10**power), bottom)]
        parts += [_text(x(10**power), HEIGHT - 8, _count(10**power), "middle")]
    parts += [
        _text(x(tokens[-1]), HEIGHT - 8, f"{_count(tokens[-1])} tokens", "end"),
        _text(LEFT - 8, bottom + GAP + RATE_HEIGHT / 2 + 4, "rate", "end"),
        _line([(x(t), y(loss)) for t, loss in zip(tokens, losses, strict=True)], 1.5),
        _line([(x(t), y_rate(rate)) for t, rate in zip(tokens, rates, strict=True)], 1.0),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _count(tokens: float) -> str:
    return f"{tokens / 1e6:.0f} M" if tokens >= 1e6 else f"{tokens / 1e3:.0f} k"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GRID}"/>'


def _line(places: Sequence[tuple[float, float]], width: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="{width}"/>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="name of a folder in training/runs")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    run = points(RUNS / arguments.run / "log.jsonl")
    title = "loss of the tokens the model chooses (mean of 20 steps), and the learning rate"
    arguments.out.write_text(curve(run, title), encoding="utf-8")


if __name__ == "__main__":
    main()
