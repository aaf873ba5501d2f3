"""Which batch `--resume` means.

In: the user's batches, an id or nothing, and what else the command line says. Out: the ledger that
goes on. Raises UsageError where there is none, or not one alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ds4_agent.agent.batch.ledger import Saved, read_ledger
from ds4_agent.agent.errors import UsageError

__all__ = ["is_batch_id", "unfinished_batch"]

_ID = re.compile(r"\d{8}(-\d{1,6}(-[0-9a-f]{0,6})?)?")


def is_batch_id(text: str) -> bool:
    """Whether it can be (the beginning of) a batch's id: `--resume` takes what follows it."""
    return _ID.fullmatch(text) is not None


def unfinished_batch(folder: Path, wanted: str, directory: Path, prompt: str | None) -> Saved:
    """The batch of that id, or the latest unfinished one of `directory` (with that `prompt`)."""
    if wanted:
        found = [saved for saved in _batches(folder) if saved.id.startswith(wanted)]
        if len(found) != 1:
            said = "several batches begin" if found else "no batch begins"
            raise UsageError(f"{said} with {wanted}; ids stand in {folder}")
        if found[0].is_finished:
            raise UsageError(f"batch {found[0].id} is finished: there is nothing to go on with")
        return found[0]
    here = os.path.realpath(directory)
    for saved in _batches(folder):
        is_it = saved.header["directory"] == here and not saved.is_finished
        if is_it and prompt in (None, saved.header["prompt"]):
            return saved
    said = "" if prompt is None else " with this prompt"
    raise UsageError(f"no unfinished batch{said} of {here}; leave out --resume to begin one")


def _batches(folder: Path) -> Iterator[Saved]:
    """Every batch that can be read, the latest first."""
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror or error}") from error
    for name in names:
        try:
            saved = read_ledger(folder / name)
        except (OSError, KeyError, TypeError, ValueError):  # damaged: it costs only itself
            continue
        if saved is not None:
            yield saved
