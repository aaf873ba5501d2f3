"""What stands in the two kinds of stored files. In: ids and raw rows, or a payload. Out: a payload
in parts, or what is in it; None for a payload that is not what the layout says.

Both begin with one line of JSON, filled up with spaces to a multiple of 8 bytes:

    extent  {"tokens": n, "packed": "010…"}
            n ids as u32 LE (whole blocks), then the rows of each history, see `snapshot.Layout`
    place   {"rows": [file, …], "tokens": position, "ids_from": k, "vocabulary": v,
            "packed": "010…"}
            ids k..position-1 as u32 LE, the logits as f32 LE, the frontier's arrays, the rows of
            each history behind the last whole block

`packed` says of each array whether it is packed (`packing.py`). The whole blocks of a place are the
blocks of its extents, in order. `ids_from` is 0 for the end of a system prompt, so that it can be
told where another prompt parts from it, else the end of the last whole block.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.kvstore.packing import Bits, Form, pack, packed_bytes, unpack
from ds4_agent.engine.kvstore.snapshot import Layout
from ds4_agent.engine.model.config import BLOCK_TOKENS

__all__ = [
    "Extent",
    "Part",
    "Place",
    "extent_parts",
    "place_parts",
    "read_extent",
    "read_place",
]

Payload = bytes | bytearray | memoryview
_MALFORMED = (ValueError, KeyError, TypeError, IndexError, OverflowError)


@dataclass(frozen=True)
class Part:
    """An array of rows as it stands in a payload."""

    data: NDArray[np.uint8]
    rows: int
    form: Form
    is_packed: bool

    def into(self, out: Bits, start: int = 0) -> None:
        """Write rows start..start+len(out)-1 into `out`."""
        unpack(self.data, self.rows, self.form, is_packed=self.is_packed, start=start, out=out)


@dataclass(frozen=True)
class Extent:
    """Rows of consecutive blocks."""

    ids: NDArray[np.uint32]
    histories: tuple[Part, ...]

    @property
    def blocks(self) -> int:
        return len(self.ids) // BLOCK_TOKENS


@dataclass(frozen=True)
class Place:
    """All of a State but the rows of its whole blocks."""

    position: int
    extents: tuple[str, ...]  # files
    ids_from: int
    ids: NDArray[np.uint32]  # from `ids_from` to the end
    logits: NDArray[np.float32]
    frontier: tuple[Part, ...]
    tails: tuple[Part, ...]


def extent_parts(
    ids: NDArray[np.uint32], histories: Sequence[Bits], layout: Layout
) -> list[memoryview]:
    """The payload of an extent, to be written one behind the other."""
    forms = [history.form for history in layout.histories]
    packed, arrays = _packed(histories, forms)
    header = {"tokens": len(ids), "packed": packed}
    return _buffers([_header(header), _flat(ids), *arrays])


def place_parts(
    ids: NDArray[np.uint32],
    extents: Sequence[str],
    logits: NDArray[np.float32],
    arrays: Sequence[Bits],
    layout: Layout,
    *,
    keeps_ids: bool,
) -> list[memoryview]:
    """The payload of the place behind `ids`. `arrays`: what `copy_frontier` gave."""
    position = len(ids)
    known = 0 if keeps_ids else position // BLOCK_TOKENS * BLOCK_TOKENS
    wanted = layout.frontier(position) + layout.tails(position)
    packed, written = _packed(arrays, [form for _, form in wanted])
    header = {
        "rows": list(extents),
        "tokens": position,
        "ids_from": known,
        "vocabulary": len(logits),
        "packed": packed,
    }
    return _buffers([_header(header), _flat(ids[known:]), _flat(logits.astype("<f4")), *written])


def read_extent(payload: Payload, layout: Layout) -> Extent | None:
    """None where it is no extent of this layout."""
    try:
        header, rest = _split_header(payload)
        tokens = _count(header["tokens"])
        if tokens % BLOCK_TOKENS:
            return None
        ids, rest = _take(rest, 4 * tokens, "<u4")
        wanted = [(tokens // h.ratio, h.form) for h in layout.histories]
        return Extent(ids, tuple(_parts(rest, wanted, header["packed"])))
    except _MALFORMED:
        return None


def read_place(payload: Payload, layout: Layout) -> Place | None:
    """None where it is no place of this layout."""
    try:
        header, rest = _split_header(payload)
        position, known = _count(header["tokens"]), _count(header["ids_from"])
        ids, rest = _take(rest, 4 * (position - known), "<u4")
        logits, rest = _take(rest, 4 * _count(header["vocabulary"]), "<f4")
        frontier, tails = layout.frontier(position), layout.tails(position)
        parts = _parts(rest, frontier + tails, header["packed"])
        return Place(
            position=position,
            extents=tuple(str(name) for name in header["rows"]),
            ids_from=known,
            ids=ids,
            logits=logits,
            frontier=tuple(parts[: len(frontier)]),
            tails=tuple(parts[len(frontier) :]),
        )
    except _MALFORMED:
        return None


def _header(values: dict[str, Any]) -> NDArray[np.uint8]:
    """The first line. What follows is aligned, so that it can be read where it lies."""
    line = json.dumps(values, separators=(",", ":")).encode()
    line += b" " * (-(len(line) + 1) % 8) + b"\n"
    return np.frombuffer(line, np.uint8)


def _split_header(payload: Payload) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    looked = 1 << 12
    while (end := bytes(payload[:looked]).find(b"\n")) < 0:
        if looked >= len(payload):
            raise ValueError("no line")
        looked *= 4
    header = json.loads(bytes(payload[:end]))
    if not isinstance(header, dict):
        raise TypeError("no object")
    return header, np.frombuffer(payload, np.uint8)[end + 1 :]


def _buffers(arrays: Sequence[NDArray[Any]]) -> list[memoryview]:
    return [array.data for array in arrays]


def _flat(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _packed(arrays: Sequence[Bits], forms: Sequence[Form]) -> tuple[str, list[NDArray[Any]]]:
    codes, written = "", []
    for array, form in zip(arrays, forms, strict=True):
        is_packed, parts = pack(array, form)
        codes += "1" if is_packed else "0"
        written += [_flat(part) for part in parts]
    return codes, written


def _parts(data: NDArray[np.uint8], wanted: Sequence[tuple[int, Form]], packed: str) -> list[Part]:
    """The arrays that fill `data` to its end. Raises ValueError where they do not."""
    parts = []
    for (rows, form), code in zip(wanted, packed, strict=True):
        is_packed = code == "1"
        own, data = _take(data, packed_bytes(rows, form, is_packed=is_packed), np.uint8)
        parts.append(Part(own, rows, form, is_packed))
    if len(data):
        raise ValueError("bytes behind the last array")
    return parts


def _take(data: NDArray[np.uint8], size: int, dtype: Any) -> tuple[Any, NDArray[np.uint8]]:
    if not 0 <= size <= len(data):
        raise ValueError("too short")
    return data[:size].view(dtype), data[size:]


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no count")
    return value
