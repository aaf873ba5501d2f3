"""How many guessed ids are computed at once, from what was measured here: how often guesses of a
kind come true, and what a pass of several ids costs against one of one. In: times and outcomes.
Out: a number, 0 where guessing does not pay. Shared by all contexts of an engine; no clock of its
own, no ids.
"""

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

__all__ = ["SPECULATE", "Mode", "Pace"]

Mode = Literal["auto", "on", "off"]
SPECULATE: tuple[Mode, ...] = ("auto", "on", "off")

REMEMBERED = 9  # times of one kind of pass; their median counts, so that a hiccup does not
FADING = 0.98  # of what an outcome weighs when the next one comes
LEAST_GAIN = 1.05  # what a pass must bring, in passes of one id
PROBE_EVERY = 128  # refusals because of the cost, then one is tried: the machine may have changed
ALWAYS = 8  # ids of a pass in mode `on`


@dataclass
class _Record:
    """How guesses of one kind came out. It begins as if one in two had."""

    hits: float = 1.0
    tries: float = 2.0

    @property
    def rate(self) -> float:
        return self.hits / self.tries

    def add(self, is_hit: bool) -> None:
        self.hits = self.hits * FADING + is_hit
        self.tries = self.tries * FADING + 1


def _times() -> "deque[float]":
    return deque(maxlen=REMEMBERED)


@dataclass
class Pace:
    """Not exact under threads that decode at the same time, and need not be."""

    mode: Mode = "auto"
    _records: dict[str, _Record] = field(default_factory=dict)
    _one: "deque[float]" = field(default_factory=_times)  # seconds of passes of one id
    # By size class: what each further id of a pass costs, in passes of one id.
    _further: "dict[int, deque[float]]" = field(default_factory=dict)
    _refused: int = 0
    _pays: bool | None = None  # the last decision; None before the first

    def came(self, kind: str, *, is_hit: bool) -> None:
        """A guess of `kind`, computed or not, was what came, or was not."""
        self._records.setdefault(kind, _Record()).add(is_hit)

    def took(self, ids: int, seconds: float) -> None:
        """A pass of so many ids took so long."""
        if ids == 1:
            self._one.append(seconds)
        elif self._one:
            further = (seconds / median(self._one) - 1) / (ids - 1)
            self._further.setdefault(_size_class(ids), _times()).append(max(further, 0.0))

    def worth(self, kind: str, available: int) -> int:
        """How many of `available` guesses of `kind` the next pass should take along."""
        if self.mode != "auto":
            return min(available, ALWAYS - 1) if self.mode == "on" else 0
        if not self._one:
            return 0  # nothing to compare with yet
        count, gain, tokens = self._best(kind, available)
        self._pays = gain >= LEAST_GAIN
        if self._pays:
            return count
        self._refused += tokens > 1 + LEAST_GAIN / 2
        if self._refused < PROBE_EVERY:
            return 0
        self._refused = 0
        return count

    def cost(self, ids: int) -> float:
        """Of a pass of so many ids, in passes of one; 1 where nothing is known: it is tried."""
        known = [(abs(size - _size_class(ids)), size) for size in self._further]
        if ids == 1 or not known:
            return 1.0
        return 1 + median(self._further[min(known)[1]]) * (ids - 1)

    def account(self) -> str:
        """One line for the user: what was chosen, and of which measurements."""
        if self.mode == "off":
            return "speculation is off"
        measured = ", ".join(
            f"{1 << size} ids {self.cost(1 << size):.1f} times" for size in sorted(self._further)
        )
        why = f": a pass of {measured} one of 1" if measured else ""
        rates = ", ".join(
            f"{kind} {record.rate:.0%}" for kind, record in sorted(self._records.items())
        )
        came = f"; guesses that come true: {rates}" if rates else ""
        chosen = {None: "waits for a guess", True: "pays at present", False: "does not pay now"}
        name = "speculation is on" if self.mode == "on" else f"speculation {chosen[self._pays]}"
        return name + why + came

    def _best(self, kind: str, available: int) -> tuple[int, float, float]:
        """(the best number of guesses, its tokens in the time of one, its tokens)."""
        rate = self._records.setdefault(kind, _Record()).rate
        best, tokens, chance = (1, 0.0, 1.0), 1.0, 1.0
        for count in range(1, available + 1):
            chance *= rate
            tokens += chance
            gain = tokens / self.cost(count + 1)
            if gain > best[1]:
                best = (count, gain, tokens)
        return best


def _size_class(ids: int) -> int:
    """2 to 3: 1, 4 to 7: 2, 8 to 15: 3 …"""
    return ids.bit_length() - 1
