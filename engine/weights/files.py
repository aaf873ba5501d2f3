"""Which files make up a checkpoint. In: its directory. Out: the paths of its safetensors files, or
one `ModelFormatError` line. It opens no tensor file.
"""

import json
from pathlib import Path

from ds4_agent.engine.errors import ModelFormatError

__all__ = ["GOOD_REPOSITORY", "INDEX", "weight_files"]

INDEX = "model.safetensors.index.json"

# What works, for whoever has something that does not.
GOOD_REPOSITORY = "deepseek-ai/DeepSeek-V4-Flash-0731"
_CODEBOOKS = (".gguf", ".jang", ".jangtq", ".axq")


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order: its index's shards, else all there are."""
    if not directory.is_dir():
        raise ModelFormatError(f"there is no model directory {directory}; check the path")
    index = directory / INDEX
    if index.is_file():
        return [_shard(directory, name) for name in _shard_names(index)]
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    foreign = [p.name for p in sorted(directory.iterdir()) if p.suffix in _CODEBOOKS]
    if foreign:
        raise ModelFormatError(
            f"{directory / foreign[0]} is in a format this engine does not read; give a "
            f"safetensors checkpoint, for instance {GOOD_REPOSITORY}"
        )
    raise ModelFormatError(f"{directory} holds no *.safetensors file; download the model's weights")


def _shard_names(index: Path) -> list[str]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({str(name) for name in names})
    except OSError as error:
        raise ModelFormatError(f"{index} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(f"{index} is damaged; download it again") from error


def _shard(directory: Path, name: str) -> Path:
    path = directory / name
    if Path(name).name != name or not path.is_file():
        raise ModelFormatError(f"{path} is named by the index and missing; download it again")
    return path
