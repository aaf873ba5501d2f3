"""The texts a model is calibrated and measured on where the user gives none: chapters of the
handbook, calls and results of tools among them. In: a tokenizer. Out: token ids. No chapter is in
both, so that what is measured was not fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.engine.dsml.tokenizer import Tokenizer

__all__ = ["calibration_ids", "verification_ids"]

VERIFIED = 8192  # tokens: half a minute of V4 Flash on a Mac, and 4 GB of what two models say


def calibration_ids(tokenizer: Tokenizer) -> list[int]:
    """About 20,000 tokens: every other chapter, from the first on."""
    return _ids(tokenizer, 0)


def verification_ids(tokenizer: Tokenizer) -> list[int]:
    """8,192 tokens of the other chapters, an even part from the beginning of each."""
    chapters = _chapters(tokenizer, 1)
    share = VERIFIED // len(chapters)
    return [token for ids in chapters for token in ids[:share]]


def _ids(tokenizer: Tokenizer, first: int) -> list[int]:
    return [token for ids in _chapters(tokenizer, first) for token in ids]


def _chapters(tokenizer: Tokenizer, first: int) -> Sequence[list[int]]:
    from ds4_agent.agent.prompt.handbook import chapters

    return [tokenizer.encode(segments) for _, segments in chapters()[first::2]]
