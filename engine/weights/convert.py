"""Converts a checkpoint into the engine's own layout: a file a layer, its weights as a recipe wants
them. In: a source and a directory to make. Out: a plain MLX checkpoint, which is one only when its
config.json, the last file, is in place; or one line that says what is wrong. What was finished is
kept, so that the same command goes on after an end of any kind.

The source is read a few rows at a time: memory does not grow with the size of a layer.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ds4_agent.engine.errors import ConversionError, ModelFormatError
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.weights.calibration import IMPORTANCE, Calibration
from ds4_agent.engine.weights.checkpoint import config_json, fingerprint, read_config
from ds4_agent.engine.weights.converted_config import config_bytes, index_bytes
from ds4_agent.engine.weights.destination import check_places, claimed, earlier_work, free_bytes
from ds4_agent.engine.weights.files import weight_files
from ds4_agent.engine.weights.importance import read_importance, write_importance
from ds4_agent.engine.weights.manifest import (
    Manifest,
    digest_of,
    record_of,
    write_manifest,
)
from ds4_agent.engine.weights.recipe import Recipe
from ds4_agent.engine.weights.repack import ImportanceOf, no_importance, repacked
from ds4_agent.engine.weights.shard_file import PART, ShardFile, put_file
from ds4_agent.engine.weights.shards import Shard, outline
from ds4_agent.engine.weights.tensors import TensorFiles

__all__ = ["Converted", "Progress", "convert"]

# Small files that belong to a model; the tokenizer makes it usable.
_COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
    "chat_template.jinja", "LICENSE",
)  # fmt: skip
_MARGIN = 32 << 20  # bytes left on the disk beside the result: manifest, index, tokenizer


@dataclass(frozen=True)
class Progress:
    """How far it is."""

    # What an earlier run made; the source's layers; the text that runs through it; the rest.
    stage: Literal["checking", "loading", "calibrating", "converting"]
    file: str
    done: int  # of the stage: bytes, layers, tokens, values converted, of earlier runs too
    total: int


@dataclass(frozen=True)
class Converted:
    """A conversion that is finished."""

    bytes: int  # of the weights
    files: int
    drafts: int  # tensors of draft layers, which are left out
    was_finished: bool  # by an earlier run


_Follow: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True)
class _Job:
    source: Path
    destination: Path
    keys: dict[str, Any]  # of the source's config.json
    config: ModelConfig
    files: TensorFiles
    shards: Sequence[Shard]
    calibration: Calibration | None
    seen: dict[str, tuple[int, int]]  # the source's files when it began
    follow: _Follow


def convert(
    source: Path,
    destination: Path,
    recipe: Recipe,
    *,
    calibration: Calibration | None = None,
    on_progress: _Follow | None = None,
    free: Callable[[Path], int] = free_bytes,
) -> Converted:
    """Convert the checkpoint in `source` into `destination`, or go on with it.

    `calibration` weights the rounding; what it makes is kept in `destination`. `free`: bytes of
    disk there are for a directory. Raises DestinationError, ModelFormatError for a source that is
    none, ConversionError, and what `calibration` raises.
    """
    check_places(source, destination)
    keys, config, files = config_json(source), read_config(source), TensorFiles(source)
    shards = outline(files, config, recipe)
    follow = on_progress or (lambda _progress: None)
    seen = _stamps(source)
    job = _Job(source, destination, keys, config, files, shards, calibration, seen, follow)
    work = Manifest(
        source=str(source.resolve()),
        recipe=recipe.name,
        formats=json.dumps(asdict(recipe)),
        calibration="" if calibration is None else calibration.digest,
        calibrated="" if calibration is None else calibration.name,
        identity=_identity(source, seen),
    )
    with _told(destination):
        finished = _finished(job, work)
        if finished is not None:
            return finished
        earlier = earlier_work(destination, work) or work
        _check_room(job, earlier, free)
        with claimed(destination):
            _run(job, earlier_work(destination, work) or work)
    return _result(job, was_finished=False)


def _finished(job: _Job, work: Manifest) -> Converted | None:
    earlier = earlier_work(job.destination, work)
    if earlier is None or not (job.destination / "config.json").is_file():
        return None
    return _result(job, was_finished=True)


def _result(job: _Job, *, was_finished: bool) -> Converted:
    return Converted(
        bytes=sum(shard.bytes for shard in job.shards),
        files=len(job.shards),
        drafts=sum(name.startswith("mtp.") for name in job.files.entries),
        was_finished=was_finished,
    )


def _run(job: _Job, manifest: Manifest) -> None:
    for pattern in (f"*{PART}", f".{IMPORTANCE}.*"):
        for left in job.destination.glob(pattern):
            left.unlink()
    manifest = _checked(job, manifest)
    write_manifest(job.destination, manifest)
    manifest, importance_of = _calibrated(job, manifest)
    total = sum(shard.values for shard in job.shards)
    done = sum(shard.values for shard in job.shards if shard.file in manifest.files)
    for shard in job.shards:
        if shard.file in manifest.files:
            continue
        with _unchanged(job):
            done = _write(job, importance_of, shard, done, total)
        path = job.destination / shard.file
        manifest = manifest.with_file(shard.file, record_of(path))
        write_manifest(job.destination, manifest)
    _finish(job, manifest)


def _checked(job: _Job, manifest: Manifest) -> Manifest:
    """The manifest without files that are not what it says; those are removed, to be made again."""
    total, done, good = sum(r.size for r in manifest.files.values()), 0, {}
    for name, record in manifest.files.items():
        path = job.destination / name

        def on_read(size: int, name: str = name) -> None:
            nonlocal done
            done += size
            job.follow(Progress("checking", name, done, total))

        if path.is_file() and record_of(path, on_read) == record:
            good[name] = record
        else:
            path.unlink(missing_ok=True)
    return Manifest(**{**vars(manifest), "files": good})


def _calibrated(job: _Job, manifest: Manifest) -> tuple[Manifest, ImportanceOf]:
    """What weights the rounding, made once: it may take longer than all the rest."""
    if job.calibration is None:
        return manifest, no_importance
    path = job.destination / IMPORTANCE
    if path.name in manifest.files:
        return manifest, read_importance(path).of

    def follow(stage: Literal["loading", "calibrating"], done: int, total: int) -> None:
        job.follow(Progress(stage, path.name, done, total))

    with _unchanged(job):
        importance = job.calibration.make(job.source, follow)
    write_importance(path, importance)
    manifest = manifest.with_file(path.name, record_of(path))
    write_manifest(job.destination, manifest)
    return manifest, importance.of


def _write(job: _Job, importance_of: ImportanceOf, shard: Shard, done: int, total: int) -> int:
    """One file, on the disk and in its place; gives the values done then."""
    with ShardFile(job.destination / shard.file, shard.specs) as out:
        for weight in shard.weights:
            for rows in repacked(job.files, job.config, weight, importance_of):
                for name, array in rows.tensors.items():
                    out.write(name, rows.first, array)
                done += rows.values
                job.follow(Progress("converting", shard.file, done, total))
    return done


def _finish(job: _Job, manifest: Manifest) -> None:
    """Makes a checkpoint of the finished files: config.json is the last."""
    with _unchanged(job):
        there = [name for name in _COMPANIONS if (job.source / name).is_file()]
        contents = {name: (job.source / name).read_bytes() for name in there}
    contents["model.safetensors.index.json"] = index_bytes(job.shards)
    contents["config.json"] = config_bytes(job.keys, job.shards)
    for name, content in contents.items():
        manifest = manifest.with_file(name, digest_of(content))
    write_manifest(job.destination, manifest)
    for name, content in contents.items():
        put_file(job.destination / name, content)


def _check_room(job: _Job, earlier: Manifest, free: Callable[[Path], int]) -> None:
    to_write = sum(shard.bytes for shard in job.shards if shard.file not in earlier.files)
    needed, there = to_write + _MARGIN + _importance_bytes(job), free(job.destination)
    if needed > there:
        raise ConversionError(
            f"{job.destination}: its disk has {there / 1e9:.1f} GB free and the conversion takes "
            f"{needed / 1e9:.1f} GB; make room, or name a directory on another disk"
        )


def _importance_bytes(job: _Job) -> int:
    """Nearly all of it is of the experts, each of which has inputs of its own."""
    c = job.config
    inputs = c.num_hidden_layers * c.n_routed_experts * (c.hidden_size + c.moe_intermediate_size)
    return 0 if job.calibration is None else 4 * inputs


def _stamps(source: Path) -> dict[str, tuple[int, int]]:
    """(size, time of the last change) of each file a conversion reads. Raises ModelFormatError."""
    names = ("config.json", *_COMPANIONS)
    paths = [*(source / name for name in names), *weight_files(source)]
    try:
        stats = {path.name: path.stat() for path in paths if path.is_file()}
    except OSError as error:
        raise ModelFormatError(f"{source} cannot be read: {error.strerror or error}") from error
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _identity(source: Path, stamps: dict[str, tuple[int, int]]) -> str:
    """Changes with the contents, sampled where files are large, and with the time of any file."""
    text = json.dumps([fingerprint(source), sorted(stamps.items())])
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _unchanged(job: _Job) -> Iterator[None]:
    """Raises ConversionError where the source was written to meanwhile: that is then the cause of
    whatever went wrong, and nothing that was made is worth anything."""
    fault: ModelFormatError | None = None
    try:
        yield
    except ModelFormatError as error:
        fault = error
    try:
        now = _stamps(job.source)
    except ModelFormatError:
        now = {}
    changed = [name for name in {**job.seen, **now} if job.seen.get(name) != now.get(name)]
    if changed:
        raise ConversionError(
            f"{job.source / changed[0]} was changed while it was converted; when it is whole "
            f"again, remove {job.destination} and convert again"
        ) from fault
    if fault is not None:
        raise fault


@contextmanager
def _told(destination: Path) -> Iterator[None]:
    """What the disk refuses, as one line."""
    try:
        yield
    except OSError as error:
        raise ConversionError(
            f"{error.filename or destination}: {error.strerror or error}; once that is mended, the "
            "same command goes on where it stopped"
        ) from error
