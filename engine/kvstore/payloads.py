"""What stands in the two kinds of stored files. In: ids and raw rows, or a first line. Out: a
payload in parts, or what the line says of the rest; None for a line that is none of these.

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

from ds4_agent.engine.kvstore.fileformat import LONGEST_LINE
from ds4_agent.engine.kvstore.packing import Bits, Form, pack
from ds4_agent.engine.kvstore.snapshot import Layout
from ds4_agent.engine.model.config import BLOCK_TOKENS

__all__ = [
    "ExtentHeader",
    "PlaceHeader",
    "extent_header",
    "extent_parts",
    "place_header",
    "place_ids",
    "place_parts",
]

_MALFORMED = (ValueError, KeyError, TypeError, RecursionError)
_MOST_VOCABULARY = 1 << 24  # ids, so that a damaged number does not ask for more memory than is


@dataclass(frozen=True)
class ExtentHeader:
    """What the first line of an extent says."""

    tokens: int  # of whole blocks
    packed: str


@dataclass(frozen=True)
class PlaceHeader:
    """What the first line of a place says."""

    position: int
    extents: tuple[str, ...]  # files
    ids_from: int
    vocabulary: int
    packed: str


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


def extent_header(line: bytes) -> ExtentHeader | None:
    """None where it is no extent's."""
    try:
        header = json.loads(line)
        tokens = _count(header["tokens"])
        if tokens % BLOCK_TOKENS:
            return None
        return ExtentHeader(tokens, str(header["packed"]))
    except _MALFORMED:
        return None


def place_header(line: bytes) -> PlaceHeader | None:
    """None where it is no place's."""
    try:
        header = json.loads(line)
        found = PlaceHeader(
            position=_count(header["tokens"]),
            extents=tuple(str(name) for name in header["rows"]),
            ids_from=_count(header["ids_from"]),
            vocabulary=_count(header["vocabulary"]),
            packed=str(header["packed"]),
        )
    except _MALFORMED:
        return None
    is_possible = found.ids_from <= found.position and found.vocabulary <= _MOST_VOCABULARY
    return found if is_possible else None


def place_ids(payload: memoryview) -> NDArray[np.uint32] | None:
    """All ids of the end of a system prompt; None for another payload."""
    line, newline, _ = bytes(payload[:LONGEST_LINE]).partition(b"\n")
    header = place_header(line) if newline else None
    if header is None or header.ids_from:
        return None
    ids = payload[len(line) + 1 :][: 4 * header.position]
    return np.frombuffer(ids, "<u4") if len(ids) == 4 * header.position else None


def _header(values: dict[str, Any]) -> NDArray[np.uint8]:
    """The first line. What follows is aligned, so that it can be read where it lies."""
    line = json.dumps(values, separators=(",", ":")).encode()
    line += b" " * (-(len(line) + 1) % 8) + b"\n"
    return np.frombuffer(line, np.uint8)


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


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no count")
    return value
