"""Whether files are still those that were looked at before: a checkpoint takes minutes to load, and
a download or a sync may exchange its files meanwhile. In: paths. Out: stamps to compare. It reads
no file.
"""

from pathlib import Path

from ds4_agent.engine.errors import ModelFormatError

__all__ = ["Stamp", "changed", "refuse_changes", "stamp", "stamps"]

Stamp = tuple[int, int, int] | None  # inode, bytes, time of the last change in ns; None: no file


def stamp(path: Path) -> Stamp:
    """What tells a file from any that takes its place."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def stamps(directory: Path) -> dict[Path, Stamp]:
    """Of all that a model is made of; of nothing where there is no such directory."""
    files = [path for kind in ("*.json", "*.safetensors") for path in directory.glob(kind)]
    return {path: stamp(path) for path in files}


def refuse_changes(directory: Path, before: dict[Path, Stamp]) -> None:
    """Raises ModelFormatError naming a file that is not as it was `before`, has gone or is new."""
    different = {path for path, _ in before.items() ^ stamps(directory).items()}
    if different:
        raise changed(min(different))


def changed(path: Path) -> ModelFormatError:
    """The line for a file that is not what it was."""
    return ModelFormatError(
        f"{path} changed while the model was being loaded; let whatever writes there finish, then "
        "start again"
    )
