"""Which files make up a checkpoint. In: its directory. Out: the paths of its safetensors files,
what its JSON files hold, or one `ModelFormatError` line. It reads no tensor data.
"""

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.weights.safetensors_file import read_header

__all__ = [
    "GOOD_REPOSITORY",
    "INDEX",
    "PULLING",
    "SMALL_REPOSITORY",
    "foreign_file",
    "index_map",
    "read_json",
    "refuse_half_pulled",
    "tensor_names",
    "weight_files",
]

# What works, for whoever has something that does not: whole, and for 128 GB.
GOOD_REPOSITORY = "deepseek-ai/DeepSeek-V4-Flash-0731"
SMALL_REPOSITORY = "mlx-community/DeepSeek-V4-Flash-2bit-DQ"
INDEX = "model.safetensors.index.json"
# There from the first byte of a download to its last; its "repository" is where it comes from.
PULLING = ".ds4-pulling.json"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
_CODEBOOKS = (".gguf", ".jang", ".jangtq", ".axq")


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order: its index's shards, else all there are."""
    if not directory.is_dir():
        raise ModelFormatError(f"there is no model directory {directory}; check the path")
    refuse_half_pulled(directory)
    index = directory / INDEX
    if index.is_file():
        return [_shard(directory, name) for name in sorted(set(index_map(index).values()))]
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    foreign = foreign_file(sorted(path.name for path in directory.iterdir()))
    if foreign is not None:
        raise ModelFormatError(
            f"{directory / foreign} is in a format this engine does not read; give a "
            f"safetensors checkpoint, for instance {GOOD_REPOSITORY}"
        )
    raise ModelFormatError(f"{directory} holds no *.safetensors file; download the model's weights")


def foreign_file(names: Iterable[str]) -> str | None:
    """The first of `names` that holds weights in a format that is not read."""
    return next((name for name in names if Path(name).suffix in _CODEBOOKS), None)


def refuse_half_pulled(directory: Path) -> None:
    """Raise ModelFormatError for a directory whose download was not finished."""
    marker = directory / PULLING
    if not marker.is_file():
        return
    repository = "REPOSITORY"
    try:
        said = str(json.loads(marker.read_text(encoding="utf-8"))["repository"])
        repository = said if _REPOSITORY.fullmatch(said) else repository
    except (OSError, ValueError, KeyError, TypeError):
        pass  # killed while it was written
    raise ModelFormatError(
        f"{directory} is not complete: its download was stopped; "
        f"`ds4-agent model pull {repository} {shlex.quote(str(directory))}` goes on with it"
    )


def tensor_names(directory: Path) -> list[str]:
    """The names of a checkpoint's tensors, as its index or else its files have them."""
    if (directory / INDEX).is_file():
        return list(index_map(directory / INDEX))
    return [name for path in weight_files(directory) for name in read_header(path)]


def index_map(index: Path) -> dict[str, str]:
    """The file of each tensor."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in names.items()}
    except OSError as error:
        raise ModelFormatError(f"{index} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(f"{index} is damaged; download it again") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object a JSON file holds."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelFormatError(f"{path} is not valid JSON; download it again") from error
    if not isinstance(data, dict):
        raise ModelFormatError(f"{path} is not a JSON object; download it again")
    return data


def _shard(directory: Path, name: str) -> Path:
    path = directory / name
    if Path(name).name != name or not path.is_file():
        raise ModelFormatError(f"{path} is named by the index and missing; download it again")
    return path
