"""Trains nano: `python -m training.train NAME --minutes 90` from the repository root.

In: shards in training/runs/data/ (copying alone while there are none). Out: training/runs/NAME/
with log.jsonl, checkpoint.pt and export/. Stopped at any moment and started again it goes on from
the last checkpoint; with more minutes than before it goes on longer.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from training.config import RUNS, NanoConfig
from training.export import export
from training.front import Front, Fronts, Size
from training.model import Model, Shape, product
from training.optimizer import OptimizerState, initial_state, is_trained, update
from training.shards import CHOSEN, FORCED, Corpus, Rows, Span, next_rows, task_rows
from training.tokenizer import DSML, control_id
from training.weights import initial_weights

# The shared part is shorter than the product's prompt: the first request stands in the rows.
# A row has to hold the longest chains, of some 900 ids.
PREFIX, LENGTH = 128, 1024
# Long prompts: a part of the steps stands behind a front, which is computed without gradient.
FRONT_USES = 12
WARM_UP_STEPS = 40
# The learning rate is constant for this part of the time, then falls in a straight line.
CONSTANT_PART = 0.45
LEAST_RATE = 0.02
# Rows that only copy: this part at first, fading out in the second half of so many steps, never
# quite gone. Fading before copying has been learned delays it (training/README.md).
COPYING_AT_FIRST = 0.85
COPYING_STEPS = 600
COPYING_ALWAYS = 0.15
# Weight of tokens the grammar forces at run time; without it they are still learned.
FORCED_WEIGHT = 0.1
BALANCING_RATE = 0.002
LOG_EVERY = 20
CHECK_EVERY_SECONDS = 240.0
CHECK_BATCHES = 3
SEED = 1


@dataclass
class Progress:
    """What a run has done so far, over all its starts; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    random: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """One training run in its folder."""

    folder: Path
    data: Path
    config: NanoConfig
    weights: dict[str, Tensor]
    optimizer: OptimizerState
    progress: Progress
    random: np.random.Generator
    rows: int

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def device(self) -> torch.device:
        return self.weights["lm_head.weight"].device

    @property
    def shape(self) -> Shape:
        return Shape(PREFIX, self.rows, LENGTH)

    @property
    def front_sizes(self) -> tuple[Size, ...]:
        """Attention to 24,576 tokens costs as much as all the rest of a row: fewer rows then."""
        few = Shape(PREFIX, max(1, self.rows // 2), LENGTH)
        return Size(1024, 4096, 0.2, self.shape), Size(5120, 24576, 0.08, few)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="folder of the run in training/runs")
    parser.add_argument("--minutes", type=float, default=90.0, help="training time in all")
    parser.add_argument("--data", type=Path, default=RUNS / "data", help="folder of the shards")
    parser.add_argument("--rows", type=int, default=4, help="rows of 1,024 tokens in a step")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="ignore an earlier checkpoint")
    parser.add_argument("--start", type=Path, help="begin with the weights of this directory")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="factor of the learning rates; with --start below 1"
    )
    return parser


def main() -> None:
    arguments = options().parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high")  # of no effect on a CPU
    folder = RUNS / arguments.name
    run = open_run(
        folder,
        arguments.data,
        fresh=arguments.fresh,
        start=arguments.start,
        rows=arguments.rows,
        device=arguments.device,
    )
    train(run, 60.0 * arguments.minutes, arguments.rate)


def open_run(
    folder: Path,
    data: Path,
    *,
    fresh: bool,
    start: Path | None = None,
    rows: int = 4,
    device: str = "cpu",
) -> Run:
    """The run in `folder`, from its checkpoint when there is one, else from `start`'s weights.

    Weights that are given can copy already: that lesson is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = NanoConfig() if start is None else config_of(start)
    weights = initial_weights(config, SEED)
    progress = Progress()
    if start is not None:
        weights = {
            name: weight.to(weights[name].dtype)
            for name, weight in load_file(start / "model.safetensors").items()
        }
        progress.step = COPYING_STEPS
    weights = {name: weight.to(device) for name, weight in weights.items()}
    run = Run(
        folder, data, config, weights, initial_state(weights), progress,
        np.random.default_rng(SEED), rows,
    )  # fmt: skip
    if run.checkpoint.exists() and not fresh:
        load_checkpoint(run)
    for name, weight in run.weights.items():
        weight.requires_grad_(weight.is_floating_point() and is_trained(name))
    return run


def config_of(model: Path) -> NanoConfig:
    """The config of an export: it may have another number of layers than a new model."""
    layers = json.loads((model / "config.json").read_text(encoding="utf-8"))["layer_types"]
    return NanoConfig(layer_types=tuple(layers))


def load_checkpoint(run: Run) -> None:
    saved = torch.load(run.checkpoint, weights_only=False, map_location=run.device)
    if saved["config"] != dataclasses.asdict(run.config):
        raise SystemExit(f"{run.checkpoint} is of another config; use --fresh or another name")
    run.weights = saved["weights"]
    run.optimizer = OptimizerState(**saved["optimizer"])
    run.progress = Progress(**saved["progress"])
    run.random.bit_generator.state = run.progress.random


def save_checkpoint(run: Run) -> None:
    """Checkpoint and export; a crash in between leaves the earlier one whole."""
    run.progress.random = dict(run.random.bit_generator.state)
    partial = run.checkpoint.with_suffix(".partial")
    torch.save(
        {
            "config": dataclasses.asdict(run.config),
            "weights": {name: weight.detach() for name, weight in run.weights.items()},
            "optimizer": vars(run.optimizer),
            "progress": dataclasses.asdict(run.progress),
        },
        partial,
    )
    os.replace(partial, run.checkpoint)
    export(run.weights, run.config, run.folder / "export")


def train(run: Run, limit: float, rate: float = 1.0) -> None:
    """Steps until `limit` seconds of training are used, over all starts of the run.

    `rate` multiplies the learning rates: at 1 a trained model forgets what it does well and has to
    learn it again.
    """
    model = Model(run.config, compiled=True, products=fast_products(run.device))
    corpus, held = Corpus(), Corpus()
    progress, began = run.progress, time.monotonic()
    losses: list[Tensor] = []
    checked = began
    tokens_before = progress.tokens
    fronts = Fronts(
        Model(run.config, compiled=False, products=model.products), run.front_sizes, FRONT_USES
    )
    while progress.seconds < limit:
        if progress.step % 50 == 0 or not corpus.is_ready:
            corpus.refresh(run.data, "train-*.npz")
            held.refresh(run.data, "held-*.npz")
        factor = rate * rate_factor(progress, limit)
        drawn = (
            fronts.drawn(run.weights, corpus, run.random) if may_have_front(run, corpus) else None
        )
        front, shape = drawn or (None, run.shape)
        before = front.before if front else None
        rows = next_rows(corpus, shape, run.random, copying_part(progress.step), before)
        losses.append(step(run, model, rows, factor, shape, front))
        progress.step += 1
        progress.tokens += shape.tokens
        now = time.monotonic()
        progress.seconds += now - began
        began = now
        if progress.step % LOG_EVERY == 0 or progress.step <= 3:
            loss = float(torch.stack(losses).mean())
            log(run, loss=loss, rate=factor, sequences=len(corpus.free),
                speed=speed(run, tokens_before))  # fmt: skip
            losses = []
        if now - checked > CHECK_EVERY_SECONDS:
            save_and_check(run, model, held, fronts)
            checked = time.monotonic()
    save_and_check(run, model, held, fronts)


def may_have_front(run: Run, corpus: Corpus) -> bool:
    """Not before copying is learned: what is far off is no help with that."""
    return corpus.is_ready and run.progress.step >= COPYING_STEPS


def save_and_check(run: Run, model: Model, held: Corpus, fronts: Fronts) -> None:
    """A checkpoint, and how held-out episodes go: behind their prompt, and behind long fronts."""
    save_checkpoint(run)
    if not held.is_ready:
        return
    log(run, held=check(run, model, held, run.shape))
    for size, (_, front) in fronts.alive.items():
        if front.before.facts is None:  # the held-out prompts follow it
            tokens = len(front.before.ids)
            log(run, front=tokens, held=check(run, model, held, size.batch, front))


def fast_products(device: torch.device) -> torch.dtype:
    """bf16 on a processor that has instructions for it, else fp32."""
    has_bf16 = device.type == "cuda" or (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
    return torch.bfloat16 if has_bf16 else torch.float32


_started = time.monotonic()


def speed(run: Run, tokens_before: int) -> int:
    """Tokens per second of this start, compilation included."""
    return round((run.progress.tokens - tokens_before) / (time.monotonic() - _started))


def log(run: Run, **values: Any) -> None:
    progress = run.progress
    line = {"step": progress.step, "tokens": progress.tokens, "seconds": round(progress.seconds)}
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    text = json.dumps(line | rounded)
    print(text, flush=True)
    with (run.folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def rate_factor(progress: Progress, limit: float) -> float:
    """Factor of all learning rates: warm-up, constant, linear fall to the end of the time."""
    used = progress.seconds / limit
    fall = min(1.0, (1.0 - used) / (1.0 - CONSTANT_PART))
    return min(1.0, (progress.step + 1) / WARM_UP_STEPS) * max(LEAST_RATE, fall)


def copying_part(step_number: int) -> float:
    fading = min(1.0, 2.0 * (1.0 - step_number / COPYING_STEPS))
    return max(COPYING_ALWAYS, COPYING_AT_FIRST * fading)


def step(
    run: Run,
    model: Model,
    rows: Rows,
    factor: float,
    shape: Shape,
    front: Front | None = None,
) -> Tensor:
    """One optimizer step; the mean loss of the chosen tokens, which nobody has waited for yet."""
    weights, device = run.weights, run.device
    layers = front.layers if front else None
    hidden, loads = model.hidden(weights, torch.from_numpy(rows.ids).to(device), shape, layers)
    asked = np.flatnonzero(rows.loss)
    chosen = torch.from_numpy(rows.loss[asked] == CHOSEN).to(device)
    targets = torch.from_numpy(rows.targets[asked]).to(device)
    logits = product(
        hidden[torch.from_numpy(asked).to(device)], weights["lm_head.weight"], model.products
    )
    each = functional.cross_entropy(logits, targets, reduction="none")
    share = torch.where(chosen, 1.0, FORCED_WEIGHT)
    (each @ share / share.sum()).backward()
    update(weights, run.optimizer, factor, run.config)
    balance(weights, loads, BALANCING_RATE * factor)
    return (each.detach() * chosen).sum() / chosen.sum()


def balance(weights: dict[str, Tensor], loads: list[Tensor], rate: float) -> None:
    """Push the selection bias of scored experts towards equal loads, as V4 does."""
    for index, load in enumerate(loads):
        bias = weights.get(f"model.layers.{index}.mlp.gate.e_score_correction_bias")
        if bias is not None:
            bias += rate * torch.sign(load.mean() - load)


def check(
    run: Run, model: Model, held: Corpus, shape: Shape, front: Front | None = None
) -> dict[str, Any]:
    """Exactly predicted turns of held-out episodes, calls and texts, the grammar's tokens left out.

    Every position is asked with the right tokens before it, which for a whole turn is the same as
    greedy decoding. The compiled training graph is used again: another takes a minute to build.
    """
    random = np.random.default_rng(SEED)
    right: dict[str, list[int]] = defaultdict(list)
    for _ in range(CHECK_BATCHES):
        rows = task_rows(held, shape, random, before=front.before if front else None)
        layers = front.layers if front else None
        ids = torch.from_numpy(rows.ids).to(run.device)
        hidden, _ = model.hidden(run.weights, ids, shape, layers)
        with torch.no_grad():
            best = functional.linear(hidden, run.weights["lm_head.weight"]).argmax(-1).cpu().numpy()
        for span in rows.episodes:
            for is_call, is_exact in turns(rows, best, span):
                right["call" if is_call else "text"].append(is_exact)
                if is_call:
                    right[span.family].append(is_exact)
    return {name: f"{sum(each)}/{len(each)}" for name, each in sorted(right.items())}


def turns(rows: Rows, best: np.ndarray[Any, Any], span: Span) -> list[tuple[bool, bool]]:
    """(is it a call, is it exact) for each assistant turn of an episode."""
    found, begin = [], span.begin
    while begin < span.end:
        end = begin
        while end < span.end and rows.loss[end] != 0:
            end += 1
        if end > begin:
            free = rows.loss[begin:end] != FORCED
            exact = best[begin:end][free] == rows.targets[begin:end][free]
            is_call = control_id(DSML) in rows.targets[begin:end]
            found.append((bool(is_call), bool(exact.all())))
        begin = end + 1
    return found


if __name__ == "__main__":
    main()
