"""Opens an engine by name: the bundled nano model, a checkpoint directory, or a script. Imports MLX
and numpy only for a model, so that a script starts at once. Every way to fail ends in one
EngineError that says what to do.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.engine.api import Engine, LoadProgress, StoreOptions
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.errors import EngineError, ModelFormatError
from ds4_agent.engine.scripted import CONTEXT_LENGTH, ScriptedEngine
from ds4_agent.engine.weights.files import refuse_half_pulled

if TYPE_CHECKING:
    from ds4_agent.engine.speculative.pace import Mode

__all__ = ["NANO", "SCRIPTED", "open_engine"]

NANO = Path(__file__).resolve().parent / "nano"
SCRIPTED = "scripted:"


def open_engine(
    spec: str | None,
    *,
    context_length: int | None = None,
    on_load: Callable[[LoadProgress], None] | None = None,
    store: StoreOptions | None = None,
    speculate: "Mode" = "off",
    verdicts: Path | None = None,
) -> Engine:
    """The engine `spec` names: None or "nano" the bundled model, "scripted:FILE" a script, anything
    else a checkpoint directory.

    `context_length` None takes the model's default. `on_load` is called on the engine
    thread as weights arrive. `store`: where states are kept; None: nowhere, as with a script.
    `speculate`: whether ids are guessed and computed several at a time, see `speculative.pace`.
    `verdicts`: the file that remembers which kernels this machine can be given (`model.kernels`).
    Raises EngineError (ModelFormatError, ScriptError).
    """
    if context_length is not None and context_length < 1:
        raise EngineError(f"--ctx {context_length} is not a number of tokens; give at least 1")
    if spec is not None and spec.startswith(SCRIPTED):
        tokenizer = Tokenizer.from_file(_bundled() / "tokenizer.json")
        path = Path(spec.removeprefix(SCRIPTED))
        return ScriptedEngine(path, tokenizer, context_length or CONTEXT_LENGTH)
    directory = _bundled() if spec is None or spec == "nano" else _directory(spec)
    from ds4_agent.engine.local import ModelEngine

    is_nano = directory == NANO
    return ModelEngine(
        directory,
        is_nano,
        context_length=context_length,
        on_load=on_load,
        store=store,
        speculate=speculate,
        verdicts=verdicts,
    )


def _directory(spec: str) -> Path:
    directory = Path(spec).expanduser()
    if directory.suffix == ".gguf":
        raise ModelFormatError(
            f"{spec} is a GGUF file, which this engine does not read; give the directory of a "
            "safetensors checkpoint, for instance deepseek-ai/DeepSeek-V4-Flash-0731"
        )
    if not os.path.isdir(directory):  # unlike Path.is_dir, False where looking is forbidden
        raise ModelFormatError(
            f"there is no readable model directory {spec}; give a directory with config.json, "
            'tokenizer.json and safetensors files, or "nano" for the bundled model'
        )
    from ds4_agent.engine.weights.manifest import refuse_unfinished

    refuse_unfinished(directory)
    refuse_half_pulled(directory)
    return directory


def _bundled() -> Path:
    if not (NANO / "tokenizer.json").is_file():
        raise EngineError(
            f"the bundled nano model is missing from {NANO}; install ds4-agent again, or name a "
            "checkpoint directory with --model"
        )
    return NANO
