"""Directories that `model pull` fills: where they are, and what says whether one is complete.

In: the directory of all models, or one of its directories. Out: records. While a download is under
way the directory holds `.ds4-pulling.json`, which every reader of models refuses; a complete one
holds `.ds4-pulled.json` instead. Both are JSON objects {"repository": "OWNER/NAME[@REVISION]",
"commit": 40 hex digits, "files": {name: {"size": bytes, "sha256" or "git": hex digits}}}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.agent.hub import RemoteFile
from ds4_agent.agent.printing import to_json, write_bytes_atomically
from ds4_agent.engine.weights.files import PULLING

__all__ = ["PULLED", "Pulled", "Repository", "pulled_models", "read_pulled", "write_pulled"]

PULLED = ".ds4-pulled.json"
# As the hub names them: no leading dot or dash, no "--", which joins the two here.
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.]|-(?!-))*"
_REVISION = r"\w[\w.-]*(?:/\w[\w.-]*)*"
_NAME = re.compile(rf"(?P<name>{_PART}/{_PART})(?:@(?P<revision>{_REVISION}))?", re.ASCII)


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, and the revision that was asked for."""

    name: str  # OWNER/NAME
    revision: str | None = None

    @classmethod
    def parsed(cls, text: str) -> Repository | None:
        """`OWNER/NAME` or `OWNER/NAME@REVISION`; None for anything else."""
        found = _NAME.fullmatch(text)
        return None if found is None else cls(found["name"], found["revision"])

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def directory(self, models: Path) -> Path:
        """Where it is pulled to where no directory is named."""
        return models / str(self).replace("/", "--")


@dataclass(frozen=True)
class Pulled:
    """What a directory says of itself. `files`: those it has when it is complete."""

    directory: Path
    repository: Repository
    commit: str
    files: tuple[RemoteFile, ...]
    is_complete: bool

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def present(self) -> int:
        """Bytes that are there, parts of files included."""
        names = {file.name for file in self.files}
        return sum(
            path.stat().st_size
            for path in self.directory.iterdir()
            if path.is_file() and (path.name in names or path.name.endswith(".part"))
        )


def read_pulled(directory: Path) -> Pulled | None:
    """What a directory says of itself; None where it was not pulled, or its record is damaged."""
    for file, is_complete in ((PULLING, False), (PULLED, True)):
        try:
            record = json.loads((directory / file).read_text(encoding="utf-8"))
            repository = Repository.parsed(record["repository"])
            files = tuple(
                RemoteFile(name, int(told["size"]), told.get("sha256", ""), told.get("git", ""))
                for name, told in record["files"].items()
            )
            if repository is not None:
                commit = str(record["commit"])
                return Pulled(directory, repository, commit, files, is_complete)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
    return None


def write_pulled(
    directory: Path, repository: Repository, commit: str, files: Sequence[RemoteFile], *, done: bool
) -> None:
    """Say that a directory is complete, or that it is not. Raises OutputError."""
    record = {
        "repository": str(repository),
        "commit": commit,
        "files": {
            file.name: {"size": file.size}
            | ({"sha256": file.sha256} if file.sha256 else {"git": file.git_id})
            for file in files
        },
    }
    write_bytes_atomically(directory / (PULLED if done else PULLING), to_json(record).encode())
    (directory / (PULLING if done else PULLED)).unlink(missing_ok=True)


def pulled_models(models: Path) -> list[Pulled]:
    """All that were pulled to where no directory was named, by name."""
    if not models.is_dir():
        return []
    found = (read_pulled(path) for path in sorted(models.iterdir()) if path.is_dir())
    return [pulled for pulled in found if pulled is not None]
