"""Which repositories may bring things that run: a list of directories in the state directory.

In: a working directory, the user's places. Out: its repository, and whether the user trusted it.
Trust is of one directory, not of what lies in it: a clone inside a trusted repository is another.
A list that cannot be read trusts nobody.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ds4_agent.agent.repository import repository_top

__all__ = ["TrustError", "is_trusted", "repository_of", "trust"]


class TrustError(Exception):
    """The list of trusted directories cannot be read or written; the message is to be shown."""


def repository_of(directory: Path) -> Path:
    """The repository that holds `directory`, by its real path; itself where there is none."""
    real = directory.resolve()
    return repository_top(real) or real


def is_trusted(repository: Path, trusted_file: Path) -> bool:
    """Whether the user trusted this repository. Raises TrustError for a damaged list."""
    return os.fspath(repository) in _read(trusted_file)


def trust(repository: Path, trusted_file: Path) -> None:
    """Trust it from now on. A damaged list begins anew. Raises TrustError."""
    try:
        known = _read(trusted_file)
    except TrustError:
        known = []
    if os.fspath(repository) in known:
        return
    text = json.dumps({"directories": [*known, os.fspath(repository)]}, indent=1)
    try:
        _write(trusted_file, text.encode())
    except OSError as error:
        raise TrustError(
            f"{repository} is trusted for this run only: "
            f"cannot write {trusted_file}: {error.strerror or error}"
        ) from error


def _read(path: Path) -> list[str]:
    try:
        directories = json.loads(path.read_bytes())["directories"]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise TrustError(
            f"no repository is trusted: cannot read {path}: {error.strerror or error}"
        ) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrustError(
            f"no repository is trusted: {path} is damaged; --trust begins a new one"
        ) from error
    if not isinstance(directories, list):
        raise TrustError(f"no repository is trusted: {path} is damaged; --trust begins a new one")
    return [entry for entry in directories if isinstance(entry, str)]


def _write(path: Path, data: bytes) -> None:
    """The whole file or nothing, 0600 from the first byte on."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".trusted.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
