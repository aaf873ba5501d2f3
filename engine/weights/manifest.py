"""What a conversion has finished, in a file beside its results: from which source, by which recipe,
and size and SHA-256 of each file. In: directories. Out: `Manifest`, read and written whole. A
directory with a manifest and without config.json is unfinished, and no model.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.weights.shard_file import put_file

__all__ = [
    "MANIFEST", "FileRecord", "Manifest", "digest_of", "read_manifest", "record_of",
    "refuse_unfinished", "write_manifest",
]  # fmt: skip

MANIFEST = "ds4-manifest.json"
VERSION = 1
_PIECE = 8 << 20


@dataclass(frozen=True)
class FileRecord:
    """A finished file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """One conversion."""

    source: str  # directory
    recipe: str
    formats: str  # what the recipe makes, in words: another version's may differ
    calibration: str  # digest of what weighted the rounding; "" nothing
    identity: str  # of the source's contents
    calibrated: str = ""  # the same as it was typed
    files: Mapping[str, FileRecord] = field(default_factory=dict)

    def is_same_work(self, other: "Manifest") -> bool:
        """Whether what `other` has finished is part of this conversion, too."""
        mine, theirs = (replace(each, source="", calibrated="", files={}) for each in (self, other))
        return mine == theirs

    def with_file(self, name: str, record: FileRecord) -> "Manifest":
        return replace(self, files={**self.files, name: record})

    def command(self, directory: Path) -> str:
        """What goes on with it, as it is typed."""
        words = ["ds4-agent", "model", "convert", self.source, str(directory)]
        words += ["--recipe", self.recipe]
        return shlex.join([*words, *(["--calibrate", self.calibrated] if self.calibrated else [])])


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a directory; None where there is none. Raises ModelFormatError."""
    path = directory / MANIFEST
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
        if keys.pop("version") != VERSION:
            raise ModelFormatError(
                f"{path} is of another version of ds4-agent; remove {directory} and convert again"
            )
        files = {str(n): FileRecord(**record) for n, record in keys.pop("files").items()}
        return Manifest(**keys, files=files)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(
            f"{path} is damaged; remove {directory} and convert again"
        ) from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Whole or not at all. Raises OSError."""
    text = json.dumps({"version": VERSION, **asdict(manifest)}, indent=1)
    put_file(directory / MANIFEST, text.encode() + b"\n")


def refuse_unfinished(directory: Path) -> None:
    """Raises ModelFormatError where a conversion began and did not end."""
    if (directory / MANIFEST).is_file() and not (directory / "config.json").is_file():
        manifest = read_manifest(directory)
        again = f"`{manifest.command(directory)}` again, which" if manifest else "it again: it"
        raise ModelFormatError(
            f"{directory} is an unfinished conversion; run {again} goes on where it stopped"
        )


def record_of(path: Path, on_read: Callable[[int], None] | None = None) -> FileRecord:
    """Of a file as it stands on the disk. `on_read` is told of bytes read. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            if on_read is not None:
                on_read(len(piece))
    return FileRecord(size, digest.hexdigest())


def digest_of(content: bytes) -> FileRecord:
    """Of a file that is about to be written."""
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())
