"""The store of states. In: a State and the tokens it stands behind, to keep; or tokens, to find the
longest prefix of them that was kept. Out: that State, bit for bit, or nothing. Saving is done by a
thread of its own, which asks the engine thread only for copies of rows that are not on disk yet;
nothing here ever raises for a disk or a file. `keys`, `payloads` and `disk` say what lies where.
"""

from collections.abc import Callable, Iterator, Sequence
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
from ds4_agent.engine.kvstore.payloads import extent_parts, place_ids, place_parts
from ds4_agent.engine.kvstore.restore import Restored, restore
from ds4_agent.engine.kvstore.snapshot import Layout, copy_frontier, copy_rows
from ds4_agent.engine.kvstore.writer import Writer
from ds4_agent.engine.model.config import BLOCK_TOKENS
from ds4_agent.engine.model.state import State

__all__ = ["KvStore", "Saved"]

CLOSING_SECONDS = 0.5
COMPARED_PROMPTS = 16  # stored system prompts that are read to say where one diverges


class Saved:
    """Where the rows are of a state that was saved or restored. A state that goes on from it has
    these very rows, and needs only its newer ones to be written."""

    def __init__(
        self, before: "Saved | None" = None, extents: tuple[tuple[str, int], ...] | None = None
    ) -> None:
        """`before`: of the state it came from. `extents`: (file, blocks); None: not written yet, or
        not at all."""
        self._before = before
        self._extents = extents

    def extents(self) -> tuple[tuple[str, int], ...]:
        """The files there are of it, or of the nearest state before it, in order."""
        place: Saved | None = self
        while place is not None:
            if place._extents is not None:
                return place._extents
            place = place._before
        return ()

    def resolve(self, extents: tuple[tuple[str, int], ...]) -> None:
        """Its rows are written."""
        self._extents = extents
        self._before = None


@dataclass(frozen=True)
class _Job:
    kind: Kind
    tokens: Sequence[int]
    state: State
    logits: NDArray[np.float32]
    saved: Saved


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
        self._writer: Writer[_Job] = Writer(self._carry_out, "ds4-kvstore")
        self._failure = ""
        self._written: set[str] = set()  # system prompts of this process

    @property
    def failure(self) -> str:
        """One line for the user when nothing can be kept, else ""."""
        return self._failure or self._disk.failure

    def save(
        self,
        kind: Kind,
        tokens: Sequence[int],
        state: State,
        logits: NDArray[np.float32],
        before: Saved | None = None,
    ) -> Saved:
        """Keep the state behind the first `state.position` of `tokens`, which never change. Returns
        at once. `before`: what this gave for a state that `state` goes on from."""
        saved = Saved(before)
        if state.position and not self._failure:
            self._writer.add(_Job(kind, tokens, state, logits, saved), is_optional=kind == "t")
        return saved

    def longest(self, tokens: Sequence[int], least: int) -> Restored | None:
        """The state behind the longest stored prefix of `tokens`, of at least so many."""
        for place, ids in self._prefixes(tokens, least):
            restored = self._restore(str(place), ids)
            if restored is not None:
                return restored
        return None

    def stored(self, tokens: Sequence[int]) -> int:
        """How long the longest stored prefix of `tokens` is, by its name; it is not read."""
        return next((place.position for place, _ in self._prefixes(tokens, 1)), 0)

    def _prefixes(
        self, tokens: Sequence[int], least: int
    ) -> Iterator[tuple[PlaceName, NDArray[np.uint32]]]:
        """The stored places of `tokens`, from position `least` on, the longest first, and the
        tokens before each."""
        found = [
            place
            for place in map(PlaceName.parse, self._disk.names(self._places))
            if place is not None and least <= place.position <= len(tokens)
        ]
        if not found:
            return
        found.sort(key=lambda place: place.position, reverse=True)
        ids = token_array(tokens, found[0].position)
        keys = chain_keys(self._root, ids)
        for place in found:
            if place.hash == place_hash(keys, ids, place.position):
                yield place, ids[: place.position]

    def use_system(self, ids: Sequence[int]) -> None:
        """Note that a system prompt is in use, though a longer prefix was restored."""
        array = token_array(ids)
        hashed = place_hash(chain_keys(self._root, array), array, len(array))
        self._disk.touch(self._places, str(PlaceName(len(array), "s", hashed)))

    def divergence(self, tokens: Sequence[int]) -> Divergence | None:
        """Where `tokens` part from the stored system prompt that goes along with them longest; None
        where one is their beginning, or none is stored. Those that this very process has stored do
        not count: when it began, they were not there. Reads payloads."""
        best: Divergence | None = None
        ids = token_array(tokens)
        names = map(PlaceName.parse, self._disk.names(self._places))
        prompts = {str(name) for name in names if name is not None and name.kind == "s"}
        for name in sorted(prompts - self._written)[-COMPARED_PROMPTS:]:
            payload = self._disk.get(self._places, name)
            stored = None if payload is None else place_ids(payload)
            if stored is None:
                continue
            common = min(len(ids), len(stored))
            differs = np.flatnonzero(ids[:common] != stored[:common])
            if not len(differs) and len(ids) >= len(stored):
                return None
            at = int(differs[0]) if len(differs) else common
            if best is None or at > best.position:
                own = int(ids[at]) if at < len(ids) else None
                best = Divergence(at, own, int(stored[at]))
        return best

    def wait(self, seconds: float) -> bool:
        """Until everything handed to `save` is on disk, at most so long; whether it is."""
        return self._writer.wait(seconds)

    def close(self) -> None:
        """Finish what is being saved, within half a second. Before the engine thread is closed."""
        if self._writer.close(CLOSING_SECONDS):
            self._disk.close()

    def _restore(self, name: str, ids: NDArray[np.uint32]) -> Restored | None:
        restored: Restored | None = self._call(
            restore, self._disk, self._places, self._rows, name, ids, self._layout
        )
        if restored is None:
            return None
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
        ids = token_array(job.tokens, job.state.position)
        keys = chain_keys(self._root, ids)
        name = PlaceName(len(ids), job.kind, place_hash(keys, ids, len(ids)))
        for known in name.as_strong():
            if self._disk.has(self._places, str(known)):
                self._disk.touch(self._places, str(known))
                return
        extents = self._write_rows(job, ids, keys)
        if extents is None:
            return
        job.saved.resolve(extents)
        arrays = self._call(copy_frontier, job.state, self._layout)
        files = [file for file, _ in extents]
        keeps_ids = job.kind == "s"
        parts = place_parts(ids, files, job.logits, arrays, self._layout, keeps_ids=keeps_ids)
        if self._writer.is_abandoned:
            return
        if job.kind == "s":
            self._written.add(str(name))
        if self._disk.put(self._places, str(name), parts) is not None:
            self._disk.hold(self._places, str(name))  # of the running session

    def _write_rows(
        self, job: _Job, ids: NDArray[np.uint32], keys: list[bytes]
    ) -> tuple[tuple[str, int], ...] | None:
        """Make sure that the rows of all whole blocks are on disk; (file, blocks) in order."""
        extents: list[tuple[str, int]] = []
        for file, blocks in job.saved.extents():
            if not self._disk.has(self._rows, file):  # deleted behind our back
                break
            extents.append((file, blocks))
        first, last = sum(blocks for _, blocks in extents), len(keys) - 1
        while first < last:
            stop = min(first + EXTENT_BLOCKS, last)
            rows = self._call(copy_rows, job.state, self._layout, first, stop)
            own = ids[first * BLOCK_TOKENS : stop * BLOCK_TOKENS]
            parts = extent_parts(own, rows, self._layout)
            file = extent_name(keys[stop], stop - first, parts)
            if self._writer.is_abandoned or self._disk.put(self._rows, file, parts) is None:
                return None
            extents.append((file, stop - first))
            first = stop
        return tuple(extents)
