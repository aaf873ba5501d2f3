"""What of a repository is pulled, and whether it can be opened here at all: decided from its list
of files, its index, its config and the headers of its tensors, before anything large is read.

In: a listing and a hub to read small files from. Out: the files, and what they take in memory; or
one line that says why not and names a repository that would do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.errors import PullError
from ds4_agent.agent.hub import Hub, Listing, RemoteFile
from ds4_agent.agent.nano_hint import LOSSLESS

if TYPE_CHECKING:
    from ds4_agent.engine.weights.plan import Plan
    from ds4_agent.engine.weights.safetensors_file import TensorEntry

__all__ = ["Choice", "choose_files"]

NEEDED = ("config.json", "tokenizer.json")
WELCOME = ("generation_config.json", "tokenizer_config.json", "LICENSE")
READERS = 8  # headers that are read at once
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # a part has it in its name
SMALL = 64 << 20  # bytes of a file that is read into memory


@dataclass(frozen=True)
class Choice:
    """The files to pull. `plan` is None where the headers could not be read."""

    files: tuple[RemoteFile, ...]
    plan: Plan | None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def choose_files(
    hub: Hub, listing: Listing, memory: int, on_header: Callable[[int, int], None]
) -> Choice:
    """What to pull of a repository, for a machine with so many bytes of memory. `on_header(done,
    total)` counts the headers that were read. Raises ModelFormatError and PullError."""
    from ds4_agent.engine.errors import ModelFormatError
    from ds4_agent.engine.weights.files import INDEX

    try:
        files = {file.name: file for file in listing.files}
        weights = _weights(hub, listing, files)
        config = _json(hub, listing, files["config.json"])
        plan = _plan(hub, listing, weights, config, on_header)
    except ModelFormatError as error:
        good = _usable(memory)
        raise ModelFormatError(f"{listing.repository}: {error}; {good} would work") from error
    small = [files[name] for name in (*NEEDED, INDEX, *WELCOME) if name in files]
    chosen = (*small, *weights)
    for file in chosen:
        if not _HASH.fullmatch(file.sha256 or file.git_id):
            raise PullError(f"{listing.repository}: the hub gives no hash of {file.name}")
    return Choice(chosen, plan)


def _weights(hub: Hub, listing: Listing, files: dict[str, RemoteFile]) -> list[RemoteFile]:
    """The files of the tensors: those the index names, else all there are."""
    from ds4_agent.engine.errors import ModelFormatError
    from ds4_agent.engine.weights.files import INDEX, foreign_file

    found = [name for name in sorted(files) if _is_plain(name) and name.endswith(".safetensors")]
    if not found:
        foreign = foreign_file(sorted(files))
        if foreign is not None:
            raise ModelFormatError(f"{foreign} is in a format this engine does not read")
        raise ModelFormatError("it holds no *.safetensors file")
    for name in NEEDED:
        if name not in files:
            raise ModelFormatError(f"it has no {name}, so it is no whole checkpoint")
    if INDEX not in files:
        return [files[name] for name in found]
    try:
        index = _json(hub, listing, files[INDEX])["weight_map"]
        shards = sorted({str(name) for name in index.values()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(f"{INDEX} is damaged") from error
    _refuse_codebooks(index)
    missing = [name for name in shards if name not in found]
    if missing:
        raise ModelFormatError(f"its index names {missing[0]}, which it does not have")
    return [files[name] for name in shards]


def _plan(
    hub: Hub,
    listing: Listing,
    weights: Sequence[RemoteFile],
    config: dict[str, Any],
    on_header: Callable[[int, int], None],
) -> Plan | None:
    """The memory plan, from the config and the headers. Loads no tensor."""
    from ds4_agent.engine.local import default_context
    from ds4_agent.engine.model.config import ModelConfig
    from ds4_agent.engine.weights.checkpoint import plan_entries
    from ds4_agent.engine.weights.names import official_name

    shape = ModelConfig.from_json(config)
    entries: dict[str, TensorEntry] = {}
    pool = ThreadPoolExecutor(READERS)
    try:
        headers = pool.map(lambda file: hub.header(listing, file), weights)
        for done, header in enumerate(headers, 1):
            entries |= header
            on_header(done, len(weights))
    except PullError:  # a server without ranges: the files will be read all the same
        return None
    finally:
        pool.shutdown(cancel_futures=True)
    _refuse_codebooks(entries)
    return plan_entries(
        Path(listing.repository),
        shape,
        {official_name(name): entry for name, entry in entries.items()},
        default_context(shape.max_position_embeddings),
    )


def _refuse_codebooks(names: Iterable[str]) -> None:
    from ds4_agent.engine.errors import ModelFormatError
    from ds4_agent.engine.weights.packed_formats import codebook_tensor

    found = codebook_tensor(names)
    if found is not None:
        raise ModelFormatError(f"{found} is of a codebook format, which this engine does not read")


def _usable(memory: int) -> str:
    """A repository that a machine can open."""
    from ds4_agent.engine.weights.files import GOOD_REPOSITORY, SMALL_REPOSITORY

    return GOOD_REPOSITORY if memory >= LOSSLESS else SMALL_REPOSITORY


def _json(hub: Hub, listing: Listing, file: RemoteFile) -> dict[str, Any]:
    from ds4_agent.engine.errors import ModelFormatError

    if file.size > SMALL:
        raise ModelFormatError(f"its {file.name} has {file.size:,} bytes, which is no such file")
    try:
        data = json.loads(hub.read(listing, file))
    except ValueError as error:
        raise ModelFormatError(f"its {file.name} is not valid JSON") from error
    if not isinstance(data, dict):
        raise ModelFormatError(f"its {file.name} is not a JSON object")
    return data


def _is_plain(name: str) -> bool:
    """Whether a name stays in the directory it is put into."""
    return Path(name).name == name and "\\" not in name
