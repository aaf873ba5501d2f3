"""The output of a process, bounded: its beginning, its end, a count, and a capped file.

In: bytes as they come, from one thread. Out: text for the model and for the screen, from any
thread. Nothing is left out without a line that says how much.
"""

from __future__ import annotations

import codecs
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

HEAD = 8 * 1024  # bytes of the beginning that are kept
TAIL = 24 * 1024  # bytes of the end
FILE_LIMIT = 64 * 1024 * 1024  # bytes of the file that holds what the two leave out
NO_ROOM = " (and not kept: no room on disk)"


class HeadTail:
    """The first `head` and the last `tail` bytes of a stream. Not thread-safe."""

    def __init__(self, head: int = HEAD, tail: int = TAIL) -> None:
        self.total = 0
        self._head_limit, self._tail_limit = head, tail
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._newlines = 0

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        self._newlines += data.count(b"\n")
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_size += len(data)
        while self._tail and self._tail_size - len(self._tail[0]) >= self._tail_limit:
            self._tail_size -= len(self._tail.popleft())

    @property
    def head(self) -> bytes:
        return bytes(self._head)

    def text(self, where: str = "") -> str:
        """What is kept, with one line between the two parts when something is left out."""
        head, tail = bytes(self._head), b"".join(self._tail)
        if self.total <= self._head_limit + self._tail_limit:
            return decoded(head + tail)
        tail = tail[-self._tail_limit :]
        # Whole lines only, unless a line is so long that hardly anything would remain.
        if (end := head.rfind(b"\n") + 1) > len(head) // 2:
            head = head[:end]
        if 0 < (start := tail.find(b"\n") + 1) < len(tail) // 2:
            tail = tail[start:]
        lines = self._newlines - head.count(b"\n") - tail.count(b"\n")
        left_out = self.total - len(head) - len(tail)
        note = f"[… {lines} lines, {left_out} bytes left out{where} …]"
        return "\n".join([decoded(head).removesuffix("\n"), note, decoded(tail)])


class Output:
    """Everything one process has printed. `spill` makes the file for what is not shown."""

    def __init__(
        self, spill: Callable[[], Path | None] | None, head: int = HEAD, tail: int = TAIL
    ) -> None:
        self._lock = threading.Lock()
        self._limit = head + tail
        self._all = HeadTail(head, tail)
        self._early = bytearray()  # all of it so far, until it goes to a file
        self._fresh = HeadTail()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._spill = spill
        self._file: BinaryIO | None = None
        self._where = ""

    def feed(self, data: bytes) -> None:
        with self._lock:
            self._all.feed(data)
            # Only whole characters are new: half of one would be shown as U+FFFD, twice.
            self._fresh.feed(self._decoder.decode(data, final=not data).encode())
            if self._spill is not None:
                self._keep(data, self._spill)

    def text(self) -> str:
        """All of it, bounded."""
        with self._lock:
            return self._all.text(self._where)

    def fresh(self) -> str:
        """What came since the last call, bounded."""
        with self._lock:
            fresh, self._fresh = self._fresh, HeadTail()
            return fresh.text(self._where)

    def beginning(self) -> bytes:
        """The first `head` bytes, as they came."""
        with self._lock:
            return self._all.head

    @property
    def is_cut(self) -> bool:
        """Whether more came than is kept."""
        return self._all.total > self._limit

    def close(self) -> None:
        with self._lock:
            self._early.clear()
            self._close_file()

    def _keep(self, data: bytes, spill: Callable[[], Path | None]) -> None:
        """Once more came than is shown, all of it goes to a file, up to FILE_LIMIT."""
        if self._all.total <= self._limit:
            self._early += data
            return
        try:
            if not self._where:
                path = spill()
                self._where = NO_ROOM
                if path is not None:
                    self._file = path.open("xb")
                    self._where = f'; all of it is in "$DS4_OUTPUT/{path.name}"'
                data = bytes(self._early) + data
                self._early.clear()
            if self._file is None:
                return
            room = FILE_LIMIT - self._file.tell()
            self._file.write(data[:room])
            self._file.flush()  # the model may look into it while the process runs
        except OSError:
            room = 0
        if room < len(data):
            self._close_file()
            self._where = self._where.replace("all of it", "its beginning")

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def decoded(data: bytes) -> str:
    """Bytes as text; what is no UTF-8 becomes U+FFFD."""
    return data.decode("utf-8", "replace")
