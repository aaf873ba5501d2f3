"""Draws one token id from one row of logits: fp32 logits, a grammar constraint, sampling settings
and a numpy generator in; an id out. Pure numpy, deterministic for a seed, never returns an id the
constraint forbids, and never repairs broken logits.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.api import Sampling
from ds4_agent.engine.dsml.constraints import Constraint, Forced, OneOf
from ds4_agent.engine.errors import EngineError

__all__ = ["choose", "generator", "probabilities"]

Floats = NDArray[np.float64]
NUCLEUS = 1024  # the likeliest ids to look at before all of a large vocabulary is sorted


def generator(sampling: Sampling, position: int) -> np.random.Generator:
    """The random numbers of the model step that begins at `position`.

    Seeded by place, not by count: a rewind that samples again draws the same numbers, and two
    steps of one run draw different ones.
    """
    if sampling.seed is None:
        return np.random.default_rng()
    return np.random.default_rng([sampling.seed, position])


def choose(
    logits: NDArray[np.float32],
    constraint: Constraint,
    sampling: Sampling,
    rng: np.random.Generator,
) -> int:
    """The next token id for `logits` [vocab] fp32; of a Forced run, its first id.

    Temperature 0 takes the largest logit among the allowed ids, the lowest id on a tie. Raises
    EngineError for NaN or infinite logits and for a constraint that allows nothing.
    """
    if isinstance(constraint, Forced):
        return constraint.ids[0]
    if not np.isfinite(logits).all():
        raise EngineError(
            "the model produced logits that are not finite; its weights are damaged or foreign: "
            "compare the files with their source"
        )
    ids = _allowed(constraint, len(logits))
    if ids is not None and len(ids) == 0:
        raise EngineError("the grammar allows no token here; this is a fault of ds4-agent")
    rows = logits if ids is None else logits[ids]
    if sampling.temperature <= 0:
        best = int(np.argmax(rows))
    else:
        best = _draw(probabilities(rows, sampling), rng)
    return best if ids is None else int(ids[best])


def probabilities(logits: NDArray[np.float32], sampling: Sampling) -> Floats:
    """What each of `logits` [n] is drawn with: fp64 [n], sum 1, zero outside top-p and min-p.

    Both cuts look at the distribution after temperature; the likeliest id always stays.
    """
    scaled = logits.astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    keep = weights >= sampling.min_p  # the largest weight is exactly 1
    if sampling.top_p < 1:
        keep &= _nucleus(weights / weights.sum(), sampling.top_p)
    kept = np.where(keep, weights, 0.0)
    chances: Floats = kept / kept.sum()
    return chances


def _nucleus(chances: Floats, top_p: float) -> NDArray[np.bool_]:
    """The smallest set of likeliest ids whose chances reach `top_p`: bool [n].

    A full sort of 129,280 chances costs more than a decode step of a small model may, so the
    likeliest few are tried first; only a flat distribution needs all.
    """
    few = min(NUCLEUS, len(chances))
    order = np.argpartition(chances, len(chances) - few)[-few:]
    if chances[order].sum() < top_p:
        order = np.arange(len(chances))
    order = order[np.lexsort((order, -chances[order]))]  # ties: the lower id first
    before = np.cumsum(chances[order]) - chances[order]
    keep = np.zeros(len(chances), dtype=np.bool_)
    keep[order[before < max(top_p, 0.0)]] = True
    keep[order[0]] = True
    return keep


def _draw(chances: Floats, rng: np.random.Generator) -> int:
    """An index of `chances` [n], each with its probability. One random number is used."""
    edges = np.cumsum(chances)
    index = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    # Rounding can put the number past the last edge that moved: never an id of chance zero.
    return index if index < len(chances) else int(np.flatnonzero(chances)[-1])


def _allowed(constraint: Constraint, vocabulary: int) -> NDArray[np.intp] | None:
    """The allowed ids in ascending order; None when all are."""
    if isinstance(constraint, OneOf):
        return _sorted(constraint.ids)
    if isinstance(constraint, Forced) or not constraint.banned:
        return None
    return _others(constraint.banned, vocabulary)


@lru_cache(maxsize=64)
def _others(banned: frozenset[int], vocabulary: int) -> NDArray[np.intp]:
    keep = np.ones(vocabulary, dtype=np.bool_)
    keep[[i for i in banned if i < vocabulary]] = False
    return np.flatnonzero(keep)


@lru_cache(maxsize=256)
def _sorted(ids: frozenset[int]) -> NDArray[np.intp]:
    return np.array(sorted(ids), dtype=np.intp)
