"""`ds4-agent model list`: the bundled model, those that were pulled, and the one that is used.

In: the parsed arguments. Out: a line a model on stdout, or JSON with `--json`. It reads the headers
of a model's files, to say whether this machine can hold it, and no weights.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ds4_agent.agent.cli import options_from
from ds4_agent.agent.display import visible
from ds4_agent.agent.model_names import SCRIPTED, model_spec
from ds4_agent.agent.places import Places
from ds4_agent.agent.printing import print_json
from ds4_agent.agent.pulled import Pulled, pulled_models, read_pulled
from ds4_agent.agent.sizes import shown_size

__all__ = ["model_list"]


@dataclass(frozen=True)
class _Entry:
    """A model. `problem` "": this machine can hold it, with a context of the usual length."""

    name: str
    directory: str
    is_default: bool
    bytes: int
    is_complete: bool
    fits: bool
    problem: str


def model_list(chosen: argparse.Namespace) -> int:
    """Print the models that can be named; returns the exit code."""
    options = options_from(chosen, is_headless=True)
    listed = _entries(options.settings.model or "nano", options.places)
    if chosen.json:
        print_json([asdict(entry) for entry in listed])
        return 0
    for entry in listed:
        mark = "*" if entry.is_default else " "
        state = "fits" if entry.fits else entry.problem
        row = f"{mark} {visible(entry.name)}  {shown_size(entry.bytes)}  {visible(state)}"
        print(f"{row}  {visible(entry.directory)}")
    return 0


def _entries(used: str, places: Places) -> list[_Entry]:
    from ds4_agent.engine.open import NANO

    named = {"nano": NANO} | {
        str(pulled.repository): pulled.directory for pulled in pulled_models(places.models)
    }
    default = _directory(used, places)
    if default is not None and default.resolve() not in {p.resolve() for p in named.values()}:
        named[used] = default
    return [_entry(name, directory, default) for name, directory in named.items()]


def _directory(used: str, places: Places) -> Path | None:
    """The directory of the model in use; None for a script, or one that is gone."""
    from ds4_agent.engine.errors import ModelFormatError
    from ds4_agent.engine.open import NANO

    if used.startswith(SCRIPTED):
        return None
    try:
        spec = model_spec(used, places) or "nano"
    except ModelFormatError:
        return None
    return NANO if spec == "nano" else Path(spec).expanduser()


def _entry(name: str, directory: Path, default: Path | None) -> _Entry:
    pulled = read_pulled(directory) if directory.is_dir() else None
    problem = _problem(directory, pulled)
    return _Entry(
        name=name,
        directory=os.fspath(directory),
        is_default=default is not None and directory.resolve() == default.resolve(),
        bytes=_size(directory, pulled),
        is_complete=directory.is_dir() and (pulled is None or pulled.is_complete),
        fits=not problem,
        problem=problem,
    )


def _problem(directory: Path, pulled: Pulled | None) -> str:
    """Why a model cannot be used here and now, in a few words; "" where it can."""
    from ds4_agent.engine.errors import EngineError
    from ds4_agent.engine.local import default_context
    from ds4_agent.engine.weights.checkpoint import plan_model, read_config

    if not directory.is_dir():
        return "is not there"
    if pulled is not None and not pulled.is_complete:
        return f"incomplete, of {shown_size(pulled.size)}: `ds4-agent model pull` goes on with it"
    try:
        context = default_context(read_config(directory).max_position_embeddings)
        plan = plan_model(directory, context)
    except EngineError as error:
        return str(error)
    if plan.fits:
        return ""
    needed, usable = shown_size(plan.needed), shown_size(plan.machine.usable)
    return f"does not fit: needs {needed}, there are {usable} (model plan says more)"


def _size(directory: Path, pulled: Pulled | None) -> int:
    if pulled is not None:
        return pulled.present
    if not directory.is_dir():
        return 0
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))
