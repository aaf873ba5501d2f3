"""One stored file, byte by byte. In: a payload in parts, and the file's label (`folder/name`). Out:
the same bytes, verified while they are read, or `DamagedError` with a reason. Never mapped into
memory: a page of a mapped file may change or vanish after it was checked.

    offset  bytes
    0       8       magic
    8       4       version of this layout (all numbers are little-endian)
    12      4       bytes of payload in a chunk, CHUNK
    16      n       the payload
    16+n    8 c     xxh3_64 of each of the c = ceil(n / CHUNK) chunks
            m       the label in UTF-8: a file under another name is not the one that was stored
            32      n (8), c (4), m (4), xxh3_64 of the header and of all that stands between the
                    payload and this checksum (8), the magic again (8)

The end is written last, so that a file that was cut off is none at all.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "CHUNK",
    "DamagedError",
    "Plan",
    "read_first_line",
    "read_into",
    "read_payload",
    "write_payload",
]

MAGIC = b"\x89ds4kv\r\n"  # a transfer that changes line ends or the eighth bit shows
VERSION = 1
CHUNK = 4 << 20
HEADER = struct.Struct("<8sII")
COUNTS = struct.Struct("<QII")
END = struct.Struct("<Q8s")
LONGEST_LABEL = 1024
ENDING = 512  # bytes in which the end of a small file stands
LONGEST_LINE = 1 << 20
MOST_PIECES = 1000  # of memory that one call reads into; systems allow 1024

Plan = Callable[[bytes], Sequence[memoryview] | None]
"""Given a payload's first line, without its newline and not verified yet: the memory, of bytes,
that all behind the newline is to be read into; None for a line that says nothing."""


class DamagedError(Exception):
    """The file is not what was stored under its label; the message says in what."""


def write_payload(
    descriptor: int, label: str, parts: Iterable[Buffer], room: Callable[[int], None]
) -> int:
    """Write a whole file; returns its bytes. `parts` are taken one at a time and not copied.

    `room` is told, before each write, how many bytes it will have. Raises OSError, and whatever
    `room` and `parts` raise.
    """
    header = HEADER.pack(MAGIC, VERSION, CHUNK)
    _write(descriptor, header, room)
    sums: list[int] = []
    length = filled = 0
    chunk = xxhash.xxh3_64()
    for part in _flat(parts):
        rest = part
        while rest:
            taken, rest = rest[: CHUNK - filled], rest[CHUNK - filled :]
            _write(descriptor, taken, room)
            chunk.update(taken)
            length += len(taken)
            filled += len(taken)
            if filled == CHUNK:
                sums.append(chunk.intdigest())
                chunk, filled = xxhash.xxh3_64(), 0
    if filled:
        sums.append(chunk.intdigest())
    end = _end(header, label.encode(), length, sums)
    _write(descriptor, end, room)
    return len(header) + length + len(end)


def read_payload(descriptor: int, label: str) -> memoryview:
    """The payload of a whole file, in memory of its own. Raises DamagedError, OSError, MemoryError.

    Takes little longer than reading: a chunk is hashed while the caches still hold it.
    """
    length, sums = _read_end(descriptor, label)
    payload = _memory(length)
    _read_chunks(descriptor, [payload], sums)
    return payload


def _memory(size: int) -> memoryview:
    import numpy as np  # not for those who only list what is stored

    return np.empty(size, np.uint8).data  # bytearray would write zeros into it first


def read_into(descriptor: int, label: str, plan: Plan) -> bool:
    """Read a payload that begins with a line to where `plan` wants it, with no copy in between.

    False where the plan has no place for it, though the file is sound. Raises DamagedError,
    OSError, MemoryError; what was read until then stands there, and is not to be used.
    """
    length, sums = _read_end(descriptor, label)
    line = read_first_line(descriptor) + b"\n"
    pieces = plan(line[:-1])
    if pieces is None or len(line) + sum(map(len, pieces)) != length:
        read_payload(descriptor, label)
        return False
    verified = memoryview(bytearray(len(line)))
    _read_chunks(descriptor, [verified, *pieces], sums)
    if verified != line:  # only where somebody wrote into the file meanwhile
        raise DamagedError("its first line has changed")
    return True


def read_first_line(descriptor: int) -> bytes:
    """The payload up to its first newline, not verified: for what may be guessed wrong, such as
    what to delete first. Raises OSError, and DamagedError where there is no such line."""
    line = b""
    while len(line) < LONGEST_LINE:
        piece = os.pread(descriptor, 1 << 12, HEADER.size + len(line))
        head, newline, _ = piece.partition(b"\n")
        line += head
        if newline:
            return line
        if not piece:
            break
    raise DamagedError("no header line")


def _flat(parts: Iterable[Buffer]) -> Iterator[memoryview]:
    for part in parts:
        view = memoryview(part)
        if view.nbytes:  # a view with a 0 in its shape cannot be cast
            yield view.cast("B")


def _write(descriptor: int, data: bytes | memoryview, room: Callable[[int], None]) -> None:
    view = memoryview(data)
    room(len(view))
    while view:
        view = view[os.write(descriptor, view) :]


def _end(header: bytes, label: bytes, length: int, sums: list[int]) -> bytes:
    table = struct.pack(f"<{len(sums)}Q", *sums)
    checked = table + label + COUNTS.pack(length, len(sums), len(label))
    return checked + END.pack(xxhash.xxh3_64_intdigest(header + checked), MAGIC)


def _read_end(descriptor: int, label: str) -> tuple[int, tuple[int, ...]]:
    """Length of the payload and the checksum of each chunk, of a file whose frame is intact."""
    size = os.fstat(descriptor).st_size
    frame = HEADER.size + COUNTS.size + END.size
    if size < frame:
        raise DamagedError(f"only {size} bytes long")
    header = _read_bytes(descriptor, HEADER.size, 0)
    magic, version, chunk = HEADER.unpack(header)
    if magic != MAGIC:
        raise DamagedError("no file of this store")
    if (version, chunk) != (VERSION, CHUNK):
        raise DamagedError(f"written in version {version} of the format, this is {VERSION}")
    ending = _read_bytes(descriptor, min(ENDING, size), max(0, size - ENDING))  # mostly all of it
    tail = ending[-COUNTS.size - END.size :]
    length, chunks, label_length = COUNTS.unpack_from(tail)
    expected, magic = END.unpack_from(tail, COUNTS.size)
    if magic != MAGIC:
        raise DamagedError("its end is missing")
    is_consistent = (
        label_length <= LONGEST_LABEL
        and chunks == -(-length // CHUNK)
        and frame + length + 8 * chunks + label_length == size
    )
    if not is_consistent:
        raise DamagedError("its length is not the one that was stored")
    whole = 8 * chunks + label_length + len(tail)
    if whole > len(ending):
        ending = _read_bytes(descriptor, whole, size - whole)
    table = ending[-whole : -len(tail)]
    if xxhash.xxh3_64_intdigest(header + table + tail[: COUNTS.size]) != expected:
        raise DamagedError("its checksums have changed")
    if table[8 * chunks :] != label.encode():
        raise DamagedError("it was stored under another name")
    return length, struct.unpack_from(f"<{chunks}Q", table)


def _read_bytes(descriptor: int, count: int, offset: int) -> bytes:
    data = os.pread(descriptor, count, offset)
    while len(data) < count:
        more = os.pread(descriptor, count - len(data), offset + len(data))
        if not more:
            raise DamagedError("it ends too early")
        data += more
    return data


def _read_chunks(descriptor: int, pieces: Sequence[memoryview], sums: Sequence[int]) -> None:
    """The payload into `pieces`, each chunk verified. Raises DamagedError and OSError."""
    offset = HEADER.size
    for number, (expected, chunk) in enumerate(zip(sums, _chunks(pieces), strict=True)):
        for start in range(0, len(chunk), MOST_PIECES):
            offset += _read_pieces(descriptor, chunk[start : start + MOST_PIECES], offset)
        digest = xxhash.xxh3_64()
        for piece in chunk:
            digest.update(piece)
        if digest.intdigest() != expected:
            raise DamagedError(f"chunk {number} of {len(sums)} has changed")


def _chunks(pieces: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """The same memory in as many lists as there are chunks, each of CHUNK bytes but the last."""
    chunk: list[memoryview] = []
    room = CHUNK
    for piece in pieces:
        rest = piece
        while rest:
            taken, rest = rest[:room], rest[room:]
            chunk.append(taken)
            room -= len(taken)
            if not room:
                yield chunk
                chunk, room = [], CHUNK
    if chunk:
        yield chunk


def _read_pieces(descriptor: int, pieces: Sequence[memoryview], offset: int) -> int:
    """Fill all of them, mostly by one call; the bytes that they have."""
    size, done = sum(map(len, pieces)), os.preadv(descriptor, pieces, offset)
    if done < size:  # whatever has cut it short: the rest one by one
        at = 0
        for piece in pieces:
            missing = piece[max(done - at, 0) :]
            at += len(piece)
            _read(descriptor, missing, offset + at - len(missing))
    return size


def _read(descriptor: int, into: memoryview, offset: int) -> None:
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], offset + done)
        if count == 0:
            raise DamagedError("it ends too early")
        done += count
