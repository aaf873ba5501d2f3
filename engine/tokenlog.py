"""An append-only sequence of token ids as an immutable value. Forking or keeping an old value costs
nothing: values share one list and each knows how much of it is its own. Never changes an id.
"""

import sys
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import overload

from ds4_agent.engine.errors import ContextFullError, TokenRangeError

__all__ = ["TokenLog", "check_ids"]

TYPE = "I"  # of four bytes, as ids are hashed and stored
MANY = 1000  # ids of which numpy finds the largest sooner


@dataclass(frozen=True)
class _Tape:
    """The shared list. Only ever grows, and only behind the longest value that reads it."""

    ids: "array[int]" = field(default_factory=lambda: array(TYPE))
    lock: threading.Lock = field(default_factory=threading.Lock)


class TokenLog(Sequence[int]):
    """Token ids 0…length-1 of a tape."""

    __slots__ = ("_length", "_tape")

    def __init__(self, tape: _Tape | None = None, length: int = 0) -> None:
        self._tape = tape or _Tape()
        self._length = length

    def appended(self, ids: Iterable[int]) -> "TokenLog":
        """This log and `ids` after it. O(len(ids)), unless another value already went on from here:
        then the two part ways and this one takes a copy (once)."""
        tape = self._tape
        with tape.lock:
            if len(tape.ids) == self._length:
                tape.ids.extend(ids)
                return TokenLog(tape, len(tape.ids))
        branch = _Tape(tape.ids[: self._length])
        branch.ids.extend(ids)
        return TokenLog(branch, len(branch.ids))

    def __len__(self) -> int:
        return self._length

    def packed(self, stop: int) -> bytes:
        """The first `stop` ids, four bytes each, in this machine's order."""
        return self._tape.ids[: min(stop, self._length)].tobytes()

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            if step == 1:
                return self._tape.ids[start:stop].tolist()
            return [self._tape.ids[i] for i in range(start, stop, step)]
        if not -self._length <= index < self._length:
            raise IndexError(f"token {index} of {self._length}")
        return self._tape.ids[index if index >= 0 else index + self._length]

    def __iter__(self) -> Iterator[int]:
        return islice(self._tape.ids, self._length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # compares with lists, which have no hash either

    def __repr__(self) -> str:
        return f"TokenLog({self._length} tokens)"


def check_ids(ids: Sequence[int], vocabulary: int, held: int, limit: int) -> "array[int]":
    """`ids` as they are appended, checked: tens of thousands in a tenth of a millisecond.

    Raises TokenRangeError or ContextFullError if they cannot follow `held` tokens.
    """
    packed = array(TYPE)
    try:
        packed.fromlist(ids if isinstance(ids, list) else list(ids))
        is_wrong = _largest(packed) >= vocabulary
    except OverflowError:  # less than 0, or of more than four bytes
        is_wrong = True
    for position, token_id in enumerate(ids if is_wrong else ()):
        if not 0 <= token_id < vocabulary:
            raise TokenRangeError(
                f"token id {token_id} at position {held + position} is outside the vocabulary "
                f"(0 to {vocabulary - 1}); prompt and model use different tokenizers"
            )
    if held + len(ids) > limit:
        raise ContextFullError(held + len(ids), limit)
    return packed


def _largest(packed: "array[int]") -> int:
    # A model has imported it; for a script, which computes nothing, it would take longer than max.
    np = sys.modules.get("numpy") if len(packed) >= MANY else None
    if np is None:
        return max(packed, default=-1)
    return int(np.frombuffer(packed, np.uint32).max())
