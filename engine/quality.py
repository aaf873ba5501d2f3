"""How well a model predicts a text, and how far it is from another, as a quantised one from its
source. In: checkpoint directories and token ids. Out: `Quality`. One model is loaded at a time, and
what the source says of each token waits in a temporary file without a name, a few hundred tokens in
memory. Runs on the engine thread.
"""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.errors import EngineError, ModelFormatError
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.prefill import chunk_spans
from ds4_agent.engine.model.state import evaluate
from ds4_agent.engine.weights.checkpoint import load_model, read_config

__all__ = ["WINDOW", "Prediction", "Quality", "measure", "predictions", "windows_of"]

WINDOW = 2048  # tokens of context a text is cut into, the beginning of each included
CHUNK = 256  # tokens whose logits are held at once: 130 MB of the full vocabulary
_SPARE = 1 << 30  # bytes that are left free on the disk


@dataclass(frozen=True)
class Quality:
    """Of a text, each of whose tokens the model had to say from those before it."""

    tokens: int
    perplexity: float  # e to the mean of -log p of the token that comes
    source_perplexity: float | None = None  # and, beside another model:
    divergence: float | None = None  # mean KL(source || this), nats a token
    agreement: float | None = None  # share of tokens for which both find the same most likely


@dataclass(frozen=True)
class Prediction:
    """What a model says of some tokens of a text that follow each other."""

    log_p: NDArray[np.float32]  # [tokens, vocab], natural
    targets: NDArray[np.int64]  # [tokens]: what came


def windows_of(ids: Sequence[int], beginning: int) -> list[list[int]]:
    """The text cut into windows, each behind the token `beginning`."""
    step = WINDOW - 1
    return [[beginning, *ids[a : a + step]] for a in range(0, len(ids), step)]


def predictions(model: Model, windows: Sequence[Sequence[int]]) -> Iterator[Prediction]:
    """Of every token of `windows` but the first of each, some hundred at a time."""
    for ids in windows:
        state = model.init_state()
        for a, b in chunk_spans(0, len(ids) - 1, CHUNK):
            logits, state = model.logits_all(ids[a:b], state)
            rows = mx.array(logits)
            log_p = rows - mx.logsumexp(rows, axis=-1, keepdims=True)
            evaluate(log_p, state)
            mx.eval(log_p)
            yield Prediction(np.array(log_p), np.array(ids[a + 1 : b + 1], dtype=np.int64))


def measure(
    directory: Path,
    windows: Sequence[Sequence[int]],
    source: Path | None = None,
    *,
    on_tokens: Callable[[int, int], None] | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Quality:
    """The quality of the model in `directory` on `windows`, beside that in `source` if given.

    `on_tokens(done, total)` follows the text through both; `stop` is called now and then and may
    raise. Raises EngineError (ModelFormatError, MemoryLimitError), also where the disk has no room
    for what the source says, and whatever the callbacks raise.
    """
    count = sum(len(ids) - 1 for ids in windows)
    if count < 1:
        raise EngineError("there is no text to measure a model on; give one of some words")
    total, done = count * (1 if source is None else 2), 0

    def said_by(place: Path) -> Iterator[Prediction]:
        nonlocal done
        model = load_model(place, on_load=lambda *_: stop(), context_length=WINDOW)
        for said in predictions(model, windows):
            yield said
            stop()
            done += len(said.targets)
            if on_tokens is not None:
                on_tokens(done, total)

    if source is None:
        alone = _Sums()
        for said in said_by(directory):
            alone.add(said)
        return Quality(count, alone.perplexity)
    vocabulary = _shared_vocabulary(directory, source)
    first, second = _Sums(), _Sums()
    with _spill(4 * vocabulary * count) as file:
        for said in said_by(source):
            first.add(said)
            _write(file, said.log_p)
        mx.clear_cache()  # the source is gone
        file.seek(0)
        for said in said_by(directory):
            second.add(said, np.fromfile(file, np.float32, said.log_p.size))
    divergence, agreement = second.divergence / count, second.agreements / count
    return Quality(count, second.perplexity, first.perplexity, divergence, agreement)


class _Sums:
    """What is added up over the tokens of a text, in fp64."""

    def __init__(self) -> None:
        self.tokens, self.surprise, self.divergence, self.agreements = 0, 0.0, 0.0, 0

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.surprise / self.tokens, 700.0))

    def add(self, said: Prediction, source: NDArray[np.float32] | None = None) -> None:
        """`source`: the log_p of another model, of the same tokens."""
        rows = np.arange(len(said.targets))
        self.tokens += len(rows)
        self.surprise -= float(said.log_p[rows, said.targets].sum(dtype=np.float64))
        if source is not None:
            other = source.reshape(said.log_p.shape)
            self.divergence += float((np.exp(other) * (other - said.log_p)).sum(dtype=np.float64))
            same = other.argmax(axis=-1) == said.log_p.argmax(axis=-1)
            self.agreements += int(same.sum())


def _shared_vocabulary(directory: Path, source: Path) -> int:
    mine, other = (read_config(place).vocab_size for place in (directory, source))
    if mine != other:
        raise ModelFormatError(
            f"{directory} has {mine:,} tokens and {source} {other:,}; only models of one "
            "vocabulary can be compared"
        )
    return mine


def _spill(size: int) -> IO[bytes]:
    """A temporary file with room for `size` bytes. It is gone when closed, and after a crash."""
    place = Path(tempfile.gettempdir())
    try:
        free = shutil.disk_usage(place).free
        if size + _SPARE > free:
            raise EngineError(
                f"comparing needs {size / 1e9:.1f} GB in {place}, which has {free / 1e9:.1f} GB "
                "free; make room, set TMPDIR or give a shorter --text"
            )
        return tempfile.TemporaryFile()
    except OSError as error:
        raise _unwritable(error) from error


def _write(file: IO[bytes], values: NDArray[np.float32]) -> None:
    try:
        np.ascontiguousarray(values).tofile(file)
        file.flush()
    except OSError as error:
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> EngineError:
    place, reason = tempfile.gettempdir(), error.strerror or error
    return EngineError(f"cannot write to {place}: {reason}; make room or set TMPDIR")
