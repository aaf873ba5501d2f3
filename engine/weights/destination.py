"""The directory a conversion writes into: whether it may be used, what an earlier run has finished
in it, and that one process at a time works there. In: two paths and the manifest of what is to be
done. Out: the earlier manifest, or one error line.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ds4_agent.engine.errors import ConversionError, DestinationError
from ds4_agent.engine.kvstore.durable import BusyError, locked
from ds4_agent.engine.weights.manifest import MANIFEST, Manifest, read_manifest
from ds4_agent.engine.weights.shard_file import PART

__all__ = ["check_places", "claimed", "earlier_work", "free_bytes"]

_LOCK = ".ds4-convert.lock"
_OWN = (_LOCK, MANIFEST + PART)  # what a run that was killed at once leaves


def check_places(source: Path, destination: Path) -> None:
    """Raises DestinationError where one directory would be written into the other."""
    here, there = source.resolve(), destination.resolve()
    if here == there:
        raise DestinationError(
            f"{destination} is the source itself; name another directory for the result"
        )
    if here in there.parents or there in here.parents:
        raise DestinationError(
            f"{destination} and {source} lie in each other; name a directory elsewhere for the "
            "result"
        )
    if destination.exists() and not destination.is_dir():
        raise DestinationError(f"{destination} is a file; name a directory for the result")


def earlier_work(destination: Path, work: Manifest) -> Manifest | None:
    """What an earlier run has finished of the same work; None where there is nothing yet. Raises
    DestinationError where something else is there, ConversionError where the source is another."""
    if not destination.exists():
        return None
    earlier = read_manifest(destination)
    if earlier is None:
        if any(path.name not in _OWN for path in destination.iterdir()):
            raise DestinationError(f"{destination} is not empty; name a new directory")
        return None
    if earlier.is_same_work(work):
        return earlier
    if (destination / "config.json").exists():
        raise DestinationError(
            f"{destination} is a finished conversion ({earlier.recipe}, of {earlier.source}); "
            "name a new directory"
        )
    if (earlier.recipe, earlier.calibration) != (work.recipe, work.calibration):
        raise DestinationError(
            f"{destination} is an unfinished conversion by another recipe or calibration "
            f"({earlier.recipe}); `{earlier.command(destination)}` ends it, or name a new directory"
        )
    raise ConversionError(
        f"{work.source} is not what the conversion in {destination} began with: it has changed, or "
        f"this is another version of ds4-agent; remove {destination} and convert again"
    )


@contextmanager
def claimed(destination: Path) -> Iterator[None]:
    """The directory, made where missing, for this process alone. If it ends with an error and
    nothing is finished, it is as it was before. Raises ConversionError and OSError."""
    is_new = not destination.exists()
    destination.mkdir(parents=True, exist_ok=True)
    try:
        with locked(destination / _LOCK, 0):
            try:
                yield
            except BaseException:
                manifest = read_manifest(destination)
                if manifest is not None and not manifest.files:
                    (destination / MANIFEST).unlink()
                raise
            finally:
                (destination / _LOCK).unlink(missing_ok=True)
    except BusyError:
        raise ConversionError(
            f"another ds4-agent is converting into {destination}; wait for its end"
        ) from None
    finally:
        if is_new and not any(destination.iterdir()):
            destination.rmdir()


def free_bytes(destination: Path) -> int:
    """Of the disk the directory stands on, or will."""
    return shutil.disk_usage(_existing(destination)).free


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.resolve().parents) if p.exists())
