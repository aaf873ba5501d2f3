"""All checks of one model, one after the other. In: a checkpoint directory. Out: `Checkup`, what
the model is and what was found. Loads it on an engine thread of its own, writes the verdicts of
kernels and nothing else.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.engine import blas
from ds4_agent.engine.api import LoadProgress
from ds4_agent.engine.checkup.findings import Finding, found
from ds4_agent.engine.open import NANO
from ds4_agent.engine.version import NANO_VERSION, read_version
from ds4_agent.engine.worker import Worker, stop_if

if TYPE_CHECKING:
    from ds4_agent.engine.local import ModelEngine

__all__ = ["Checkup", "ModelFacts", "check_up"]

Check = tuple[str, str, Callable[[], Finding]]  # its name, what is said meanwhile, what it does


@dataclass(frozen=True)
class ModelFacts:
    """What a report says of a checkpoint; nothing in it tells of its owner's directories."""

    name: str
    release: str
    fingerprint: str
    layers: int
    hidden_size: int
    experts: int
    layout: dict[str, int]  # bytes of the files' tensors by dtype, as stored
    recipe: str  # of `model convert`; "": it was not made by that


@dataclass(frozen=True)
class Checkup:
    """A model, and what each check found of it."""

    model: ModelFacts
    findings: tuple[Finding, ...]

    @property
    def has_failed(self) -> bool:
        return any(finding.verdict == "failed" for finding in self.findings)


def check_up(
    directory: Path,
    *,
    verdicts: Path | None,
    on_load: Callable[[LoadProgress], None] | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> Checkup:
    """Try all kernels again, load the model and check it.

    `verdicts`: the file that remembers kernels. `on_step` is told what is being done, also on the
    engine thread. An interrupt ends it within a step. Raises EngineError where the model does not
    load.
    """
    from ds4_agent.engine.local import ModelEngine

    on_step("trying kernels")
    kernels = _kernels_tried(directory, verdicts)
    is_nano = directory == NANO
    engine = ModelEngine(
        directory, is_nano, context_length=_context(directory), on_load=on_load, verdicts=verdicts
    )
    interrupted = threading.Event()
    try:
        findings = [kernels]
        release = NANO_VERSION.name if is_nano else read_version(directory).name
        checks = _checks(engine, release, on_step, lambda: stop_if(interrupted))
        for name, doing, make in checks:
            on_step(doing)
            findings.append(found(name, partial(engine.runtime.worker.call, make)))
        return Checkup(_facts(directory, engine, release), tuple(findings))
    finally:
        interrupted.set()
        engine.close()


def _context(directory: Path) -> int:
    """Tokens: enough for the checks, so that a machine just large enough can make them."""
    from ds4_agent.engine.checkup import recall
    from ds4_agent.engine.weights.checkpoint import read_config

    return min(recall.TOKENS, read_config(directory).max_position_embeddings)


def _kernels_tried(directory: Path, verdicts: Path | None) -> Finding:
    def tried() -> Finding:
        blas.preload()
        from ds4_agent.engine.checkup.kernels import check_kernels
        from ds4_agent.engine.weights.checkpoint import read_config

        return check_kernels(read_config(directory), verdicts)

    worker = Worker("ds4-kernels")
    try:
        return worker.call(tried)
    finally:
        worker.close()


def _checks(
    engine: "ModelEngine", release: str, on_step: Callable[[str], None], stop: Callable[[], None]
) -> Sequence[Check]:
    from ds4_agent.engine.checkup import parity, published, recall, speed

    model, tokenizer = engine.runtime.model, engine.tokenizer
    is_nano, tokens = release == NANO_VERSION.name, engine.context_length

    def during(doing: str) -> Callable[[], None]:
        """What is called now and then meanwhile: it says again what a line shown before hid."""

        def go_on() -> None:
            stop()
            on_step(doing)

        return go_on

    computing, measuring = "computing nano in several ways", "measuring speed"
    asking = "asking what DeepSeek's API was asked"
    reading = "reading a text" if is_nano else f"reading {tokens:,} tokens"

    def answered(done: int, total: int) -> None:
        stop()
        on_step(f"{asking}, {done}/{total}")

    def recalled() -> Finding:
        go_on = during(reading)
        return recall.check_recall(model, tokenizer, is_nano=is_nano, tokens=tokens, stop=go_on)

    return (
        (parity.CHECK, computing, lambda: parity.check_parity(NANO, during(computing))),
        (
            published.CHECK,
            asking,
            lambda: published.check_published(model, tokenizer, release, answered),
        ),
        (recall.CHECK, reading, recalled),
        (speed.CHECK, measuring, lambda: speed.check_speed(model, during(measuring))),
    )


def _facts(directory: Path, engine: "ModelEngine", release: str) -> ModelFacts:
    from ds4_agent.engine.weights.manifest import read_manifest
    from ds4_agent.engine.weights.tensors import TensorFiles

    layout: dict[str, int] = {}
    for entry in TensorFiles(directory).entries.values():
        layout[entry.dtype] = layout.get(entry.dtype, 0) + entry.size
    config, manifest = engine.runtime.model.config, read_manifest(directory)
    return ModelFacts(
        name=engine.model_name,
        release=release,
        fingerprint=engine.fingerprint,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        experts=config.n_routed_experts,
        layout=dict(sorted(layout.items(), key=lambda item: -item[1])),
        recipe="" if manifest is None else manifest.recipe,
    )
