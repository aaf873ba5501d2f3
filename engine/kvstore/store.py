"""The store of states. In: a State and the tokens it stands behind, to keep; or tokens, to find the
longest prefix of them that was kept. Out: that State, bit for bit, or nothing. Saving is done by a
thread of its own, which asks the engine thread only for copies of rows that are not on disk yet;
nothing here ever raises for a disk or a file. `keys`, `payloads` and `disk` say what lies where.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.api import Divergence
from ds4_agent.engine.errors import EngineError
from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.kvstore.keys import (
    EXTENT_BLOCKS,
    Kind,
    PlaceName,
    chain_keys,
    extent_name,
    place_hash,
    token_array,
)
from ds4_agent.engine.kvstore.payloads import extent_parts, place_parts, read_place
from ds4_agent.engine.kvstore.restore import Restored, restore
from ds4_agent.engine.kvstore.snapshot import Layout, copy_frontier, copy_rows
from ds4_agent.engine.kvstore.writer import Writer
from ds4_agent.engine.model.config import BLOCK_TOKENS
from ds4_agent.engine.model.state import State

__all__ = ["KvStore"]

CLOSING_SECONDS = 0.5
COMPARED_PROMPTS = 16  # stored system prompts that are read to say where one diverges


@dataclass(frozen=True)
class _Job:
    kind: Kind
    tokens: Sequence[int]
    state: State
    logits: NDArray[np.float32]


class KvStore:
    """The states of one model on one disk. Every method may be called from any thread but the
    engine's; `Disk` is shared with no other store."""

    def __init__(self, disk: Disk, root: bytes, layout: Layout, call: Callable[..., Any]) -> None:
        """`root`: see `keys`; `call(fn, *args)` runs fn on the engine thread and returns what it
        returns."""
        folder = root.hex()[:16]
        self._places, self._rows = f"{folder}/places", f"{folder}/rows"
        self._disk = disk
        self._root = root
        self._layout = layout
        self._call = call
        self._known = _Known()
        self._writer: Writer[_Job] = Writer(self._carry_out, "ds4-kvstore")
        self._failure = ""

    @property
    def failure(self) -> str:
        """One line for the user when nothing can be kept, else ""."""
        return self._failure or self._disk.failure

    def save(
        self, kind: Kind, tokens: Sequence[int], state: State, logits: NDArray[np.float32]
    ) -> None:
        """Keep the state behind the first `state.position` of `tokens`, which never change. Returns
        at once."""
        if state.position and not self._failure:
            self._writer.add(_Job(kind, tokens, state, logits), is_optional=kind == "t")

    def longest(self, tokens: Sequence[int], beyond: int) -> Restored | None:
        """The state behind the longest stored prefix of `tokens`, longer than `beyond`."""
        found = [
            place
            for place in map(PlaceName.parse, self._disk.names(self._places))
            if place is not None and beyond < place.position <= len(tokens)
        ]
        if not found:
            return None
        found.sort(key=lambda place: place.position, reverse=True)
        ids = token_array(tokens[: found[0].position])
        keys = chain_keys(self._root, ids)
        for place in found:
            if place.hash == place_hash(keys, ids, place.position):
                restored = self._restore(place, ids[: place.position], keys)
                if restored is not None:
                    return restored
        return None

    def use_system(self, ids: Sequence[int]) -> None:
        """Note that a system prompt is in use, though a longer prefix was restored."""
        array = token_array(ids)
        hashed = place_hash(chain_keys(self._root, array), array, len(array))
        self._disk.touch(self._places, str(PlaceName(len(array), "s", hashed)))

    def divergence(self, tokens: Sequence[int]) -> Divergence | None:
        """Where `tokens` part from the stored system prompt that goes along with them longest; None
        where one is their beginning, or none is stored. Reads payloads."""
        best: Divergence | None = None
        ids = token_array(tokens)
        names = map(PlaceName.parse, self._disk.names(self._places))
        prompts = sorted((n for n in names if n is not None and n.kind == "s"), key=str)
        for name in prompts[-COMPARED_PROMPTS:]:
            payload = self._disk.get(self._places, str(name))
            place = None if payload is None else read_place(payload, self._layout)
            if place is None or place.ids_from:
                continue
            common = min(len(ids), len(place.ids))
            differs = np.flatnonzero(ids[:common] != place.ids[:common])
            if not len(differs) and len(ids) >= len(place.ids):
                return None
            at = int(differs[0]) if len(differs) else common
            if best is None or at > best.position:
                own = int(ids[at]) if at < len(ids) else None
                best = Divergence(at, own, int(place.ids[at]))
        return best

    def wait(self, seconds: float) -> bool:
        """Until everything handed to `save` is on disk, at most so long; whether it is."""
        return self._writer.wait(seconds)

    def close(self) -> None:
        """Finish what is being saved, within half a second. Before the engine thread is closed."""
        if self._writer.close(CLOSING_SECONDS):
            self._disk.close()

    def _restore(
        self, place: PlaceName, ids: NDArray[np.uint32], keys: list[bytes]
    ) -> Restored | None:
        name = str(place)
        restored: Restored | None = self._call(
            restore, self._disk, self._places, self._rows, name, ids, self._layout
        )
        if restored is None:
            return None
        first = 0
        for file, blocks, used in restored.extents:
            if used == blocks:
                self._known.add(file, keys[first : first + blocks + 1])
            first += used
        self._disk.touch(self._places, name)
        self._disk.hold(self._places, name)
        return restored

    def _carry_out(self, job: _Job) -> None:
        """Write one place and the rows that are missing for it. Runs in the writer's thread."""
        try:
            self._write(job)
        except EngineError:
            return  # closed meanwhile
        except Exception as error:
            self._failure = f"the KV cache is off: {type(error).__name__}: {error}"
        finally:
            if self._writer.is_abandoned:
                self._disk.close()

    def _write(self, job: _Job) -> None:
        ids = token_array(job.tokens[: job.state.position])
        keys = chain_keys(self._root, ids)
        name = PlaceName(len(ids), job.kind, place_hash(keys, ids, len(ids)))
        for known in name.as_strong():
            if self._disk.has(self._places, str(known)):
                self._disk.touch(self._places, str(known))
                return
        extents = self._write_rows(job.state, ids, keys)
        if extents is None or self._writer.is_abandoned:
            return
        arrays = self._call(copy_frontier, job.state, self._layout)
        parts = place_parts(
            ids, extents, job.logits, arrays, self._layout, keeps_ids=job.kind == "s"
        )
        if self._disk.put(self._places, str(name), parts) is not None and job.kind == "s":
            self._disk.hold(self._places, str(name))

    def _write_rows(
        self, state: State, ids: NDArray[np.uint32], keys: list[bytes]
    ) -> list[tuple[str, int]] | None:
        """Make sure that the rows of all whole blocks are on disk; (file, blocks used) in order."""
        extents = self._known.cover(keys)
        for index, (file, _) in enumerate(extents):
            if not self._disk.has(self._rows, file):  # deleted behind our back
                self._known.forget(file)
                del extents[index:]
                break
        first, blocks = sum(used for _, used in extents), len(keys) - 1
        while first < blocks:
            stop = min(first + EXTENT_BLOCKS, blocks)
            file = extent_name(keys, first, stop)
            rows = self._call(copy_rows, state, self._layout, first, stop)
            own = ids[first * BLOCK_TOKENS : stop * BLOCK_TOKENS]
            if self._writer.is_abandoned:
                return None
            if self._disk.put(self._rows, file, extent_parts(own, rows, self._layout)) is None:
                return None
            self._known.add(file, keys[first : stop + 1])
            extents.append((file, stop - first))
            first = stop
        return extents


class _Known:
    """The extents on disk that this process has written or read."""

    def __init__(self) -> None:
        self._behind: dict[bytes, dict[str, list[bytes]]] = {}
        self._lock = threading.Lock()

    def add(self, file: str, keys: list[bytes]) -> None:
        """`keys`: the one before its first block, then one a block."""
        with self._lock:
            self._behind.setdefault(keys[0], {})[file] = keys[1:]

    def forget(self, file: str) -> None:
        with self._lock:
            for files in self._behind.values():
                files.pop(file, None)

    def cover(self, keys: list[bytes]) -> list[tuple[str, int]]:
        """(file, blocks used) of extents that hold the first blocks of a chain, as far as known."""
        extents: list[tuple[str, int]] = []
        first = 0
        with self._lock:
            while True:
                ahead = keys[first + 1 :]
                files = self._behind.get(keys[first], {})
                used, file = max(((_common(own, ahead), file) for file, own in files.items()),
                                 default=(0, ""))  # fmt: skip
                if not used:
                    return extents
                extents.append((file, used))
                first += used


def _common(a: list[bytes], b: list[bytes]) -> int:
    count = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        count += 1
    return count
