"""What may weight the rounding of a conversion: a text that is run through the source, or the
importance file that an earlier conversion has kept. In: token ids, or a path. Out: a `Calibration`,
which says what it is before it is made: making it loads the whole source.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from ds4_agent.engine.errors import MemoryLimitError, ModelFormatError
from ds4_agent.engine.weights.calibrate import collect_importance
from ds4_agent.engine.weights.checkpoint import load_model
from ds4_agent.engine.weights.importance import Importance, read_importance
from ds4_agent.engine.weights.manifest import record_of

__all__ = ["IMPORTANCE", "LEAST_TOKENS", "Calibration", "by_file", "by_text"]

IMPORTANCE = "ds4-importance.safetensors"  # what a conversion keeps, beside its weights
LEAST_TOKENS = 256  # of a shorter text most experts see nothing

Follow: TypeAlias = Callable[[Literal["loading", "calibrating"], int, int], None]


@dataclass(frozen=True)
class Calibration:
    """How much the inputs of each product count, not yet made."""

    name: str  # as the user typed it
    digest: str  # of what it is made of: another one is another conversion
    make: Callable[[Path, Follow], Importance]
    """Of the source in a directory; `Follow` hears of layers and tokens and may raise. Raises
    EngineError (ModelFormatError, MemoryLimitError)."""


def by_text(name: str, windows: Sequence[Sequence[int]]) -> Calibration:
    """`windows` of token ids, each behind a new beginning, through the source itself. Raises
    ModelFormatError where they are too few."""
    tokens = sum(map(len, windows))
    if tokens < LEAST_TOKENS:
        raise ModelFormatError(
            f"{name} has {tokens:,} tokens; calibration needs {LEAST_TOKENS:,} and more, some "
            "thousand of what the model will be used for"
        )
    digest = hashlib.sha256(b"text 1")
    for ids in windows:
        digest.update(np.array([len(ids), *ids], np.uint32).tobytes())

    def make(source: Path, follow: Follow) -> Importance:
        longest = max(map(len, windows))
        try:
            model = load_model(
                source,
                on_load=lambda progress: follow("loading", progress.done, progress.total),
                context_length=longest,
            )
        except MemoryLimitError as error:
            raise MemoryLimitError(
                f"{error}; or calibrate on a larger machine and give the {IMPORTANCE} of its result"
            ) from error
        return collect_importance(
            model, windows, lambda done, total: follow("calibrating", done, total)
        )

    return Calibration(name, digest.hexdigest(), make)


def by_file(path: Path, name: str) -> Calibration:
    """The importance file that a conversion of the same model has kept, maybe on a larger machine.
    Raises ModelFormatError."""
    importance = read_importance(path)
    return Calibration(name, record_of(path).sha256, lambda _source, _follow: importance)
