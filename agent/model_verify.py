"""`ds4-agent model verify`: whether a checkpoint's files are whole, how well the model predicts a
text, and how far that is from another model, as that of a quantised one from its source.

In: its arguments. Out: a few lines on stdout, or JSON with `--json`; the exit code, 2 where a file
is at fault. It changes nothing.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.cli import options_from
from ds4_agent.agent.display import visible
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.printing import print_json
from ds4_agent.agent.sizes import shown_size

if TYPE_CHECKING:
    from ds4_agent.engine.quality import Quality
    from ds4_agent.engine.weights.soundness import Soundness

__all__ = ["add_verify_options", "verify_model"]

SHOWN_FAULTS = 20
BUNDLED = "chapters of the handbook"


def add_verify_options(parser: argparse.ArgumentParser) -> None:
    """What only `verify` takes."""
    parser.add_argument("--against", metavar="SRC", help="of `verify`: the model it was made from")
    parser.add_argument("--text", metavar="FILE", type=Path, help="of `verify`: what to predict")


def verify_model(chosen: argparse.Namespace, directory_of: Callable[[str], Path]) -> int:
    """Run `model verify`. Raises UsageError and EngineError."""
    from ds4_agent.engine.errors import MemoryLimitError
    from ds4_agent.engine.weights.soundness import examine_files

    settings = options_from(chosen, is_headless=True).settings
    directory = directory_of(chosen.name or settings.model or "nano")
    source = None if chosen.against is None else directory_of(chosen.against)
    text = None if chosen.text is None else _text(chosen.text)
    sound = examine_files(directory)
    quality, why_not = None, ""
    if not sound.faults:
        try:
            quality = _measured(directory, source, text)
        except MemoryLimitError as error:
            if source is not None or text is not None:
                raise
            why_not = str(error)
    figures = _figures(directory, source, chosen.text, sound, quality, why_not)
    if chosen.json:
        print_json(figures)
    else:
        _print(figures)
    return 2 if sound.faults else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--text {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--text {path} is not UTF-8 text: {error.reason}") from error


def _measured(directory: Path, source: Path | None, text: str | None) -> Quality:
    """On an engine thread of its own, which an interrupt ends at the next layer or chunk."""
    from ds4_agent.agent.sample_text import verification_ids
    from ds4_agent.engine.dsml.segments import BOS
    from ds4_agent.engine.dsml.tokenizer import Tokenizer
    from ds4_agent.engine.worker import Worker, stop_if

    tokenizer = Tokenizer.from_file(directory / "tokenizer.json")
    ids = verification_ids(tokenizer) if text is None else tokenizer.encode_data(text)
    beginning, cancel = tokenizer.control(BOS), threading.Event()

    def measured() -> Quality:
        from ds4_agent.engine import blas

        blas.preload()
        from ds4_agent.engine.quality import measure, windows_of

        windows = windows_of(ids, beginning)
        return measure(directory, windows, source, stop=lambda: stop_if(cancel))

    worker = Worker()
    try:
        return worker.call(measured)
    finally:
        cancel.set()
        worker.close()


def _figures(
    directory: Path,
    source: Path | None,
    text: Path | None,
    sound: Soundness,
    quality: Quality | None,
    why_not: str,
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "directory": os.fspath(directory),
        "files": sound.files,
        "tensors": sound.tensors,
        "bytes": sound.bytes,
        "faults": list(sound.faults),
        "text": BUNDLED if text is None else os.fspath(text),
        "tokens": quality.tokens if quality else 0,
        "perplexity": quality.perplexity if quality else None,
        "not_measured": why_not,
        "against": None,
    }
    if quality is not None and source is not None:
        figures["against"] = {
            "directory": os.fspath(source),
            "perplexity": quality.source_perplexity,
            "kl": quality.divergence,
            "same_first": quality.agreement,
        }
    return figures


def _print(figures: dict[str, Any]) -> None:
    count, size = f"{figures['tensors']:,} tensors", shown_size(figures["bytes"])
    rows = [("files", f"{figures['files']:,} with {count}, {size}")]
    faults = figures["faults"]
    rows += [("fault", fault) for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        rows.append(("faults", f"{len(faults):,} in all; --json lists them"))
    if not faults:
        rows.append(("values", "every one is a number"))
    if figures["not_measured"]:
        rows.append(("not measured", figures["not_measured"]))
    if figures["perplexity"] is not None:
        rows.append(("perplexity", f"{figures['perplexity']:.4g} a token of {_named(figures)}"))
    other = figures["against"]
    if other is not None:
        rows += [
            ("of the source", f"{other['perplexity']:.4g} ({other['directory']})"),
            ("KL from it", f"{other['kl']:.4g} nats a token"),
            ("same first", f"{other['same_first']:.1%} of tokens have the same most likely next"),
        ]
    for key, value in rows:
        print(f"{key:<18} {visible(value)}")


def _named(figures: dict[str, Any]) -> str:
    return f"{figures['tokens']:,}, {figures['text']}"
