"""The bytes of every id that plain text can have, ordered for three questions: which ids begin with
these bytes, which ids are a beginning of them, and which ids a byte automaton lets through.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["Vocabulary"]

State = TypeVar("State")


class Vocabulary:
    """An index over a tokenizer's pieces. Immutable."""

    def __init__(self, pieces: Sequence[bytes], control_ids: frozenset[int]) -> None:
        """`pieces`: [vocab_size], the bytes of each id."""
        named = sorted(
            (piece, i) for i, piece in enumerate(pieces) if piece and i not in control_ids
        )
        self.control_ids = control_ids
        self._pieces = [piece for piece, _ in named]
        self._ids = [i for _, i in named]

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Every data id with its bytes, ordered by the bytes."""
        return zip(self._pieces, self._ids, strict=True)

    def starting_with(self, prefix: bytes) -> Iterator[tuple[bytes, int]]:
        """The ids whose bytes begin with `prefix`."""
        at = bisect_left(self._pieces, prefix)
        while at < len(self._pieces) and self._pieces[at].startswith(prefix):
            yield self._pieces[at], self._ids[at]
            at += 1

    def beginnings_of(self, text: bytes) -> Iterator[tuple[bytes, int]]:
        """The ids whose bytes are a beginning of `text`, shorter than all of it."""
        for length in range(1, len(text)):
            at = bisect_left(self._pieces, text[:length])
            while at < len(self._pieces) and self._pieces[at] == text[:length]:
                yield self._pieces[at], self._ids[at]
                at += 1

    def accepted_by(
        self, state: State, step: Callable[[State, int], State | None]
    ) -> Iterator[int]:
        """The ids all of whose bytes `step` lets through from `state`.

        Ids with a common beginning are judged together: a refused byte is tried once, not once for
        each of the tens of thousands of ids that begin with a space.
        """
        open_ranges = [(0, len(self._pieces), 0, state)]
        while open_ranges:
            low, high, depth, reached = open_ranges.pop()
            while low < high and len(self._pieces[low]) == depth:
                yield self._ids[low]
                low += 1
            while low < high:
                byte = self._pieces[low][depth]
                end = bisect_right(
                    self._pieces,
                    byte,
                    low,
                    high,
                    key=lambda piece, at=depth: piece[at],  # type: ignore[misc]
                )
                following = step(reached, byte)
                if following is not None:
                    open_ranges.append((low, end, depth + 1, following))
                low = end
