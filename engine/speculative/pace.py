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
# Of guesses that would bring so many tokens were a pass free, so many are refused, then one is
# tried: the machine may have been busy when it was measured.
LEAST_TOKENS, PROBE_EVERY = 1.5, 128
HOPED = 0.1  # passes of one id: what a further id costs, where no pass was measured
ALWAYS = 8  # ids of a pass in mode `on`
MOST = 15  # guesses, where the account tells what would be taken along


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
        if gain >= LEAST_GAIN:
            return count
        self._refused += tokens >= LEAST_TOKENS
        if self._refused < PROBE_EVERY:
            return 0
        self._refused = 0
        return count

    def cost(self, ids: int) -> float:
        """Of a pass of so many ids, in passes of one. What was not measured is hoped to be cheap,
        so that it is tried: a further id at half the price of one in a pass of half the size."""
        own = _size_class(ids)
        known = [(abs(size - own), size) for size in self._further]
        if ids == 1 or not known:
            return 1 + HOPED * (ids - 1)
        _, nearest = min(known)
        price = median(self._further[nearest]) / (1 << max(own - nearest, 0))
        return 1 + price * (ids - 1)

    def account(self) -> str:
        """One line for the user: what is chosen, and of which measurements."""
        if self.mode == "off":
            return "speculation is off"
        if not self._records:
            return f"speculation is {self.mode}: nothing was guessed yet"
        kinds = "; ".join(self._choice(kind) for kind in sorted(self._records, key=_by_length))
        costs = ", ".join(
            f"{1 << size} ids {self.cost(1 << size):.1f}" for size in sorted(self._further)
        )
        passes = f"; passes, in times of one id: {costs}" if costs else ""
        return f"speculation is {self.mode}: {kinds}{passes}"

    def _choice(self, kind: str) -> str:
        """What is done about offers of `kind`."""
        rate = f"{kind}, {self._records[kind].rate:.0%} right"
        if self.mode == "on":
            return rate
        count, gain, _ = self._best(kind, MOST)
        return f"{rate}, {count} at once" if gain >= LEAST_GAIN else f"{rate}, left"

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


def _by_length(kind: str) -> tuple[int, str]:
    """Kinds that end in a number stand in its order."""
    number = kind.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0, kind
