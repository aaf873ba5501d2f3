"""What a grammar allows as the next id. Plain frozen values; the same place in a grammar answers
with the same object, so a sampler may keep a mask by the identity of the set.
"""

from dataclasses import dataclass

__all__ = ["Constraint", "Forced", "Free", "OneOf"]


@dataclass(frozen=True)
class Free:
    """Any id but these."""

    banned: frozenset[int]


@dataclass(frozen=True)
class Forced:
    """Exactly these ids, in this order: nothing to sample."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class OneOf:
    """One of these ids."""

    ids: frozenset[int]


Constraint = Free | Forced | OneOf
