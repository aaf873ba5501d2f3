"""The operations that a kernel of one backend may stand in for, as one value that the model is
given once. In: nothing. Out: `Operations`, by default the pure operations of MLX (and numpy), which
exist on every backend; `kernels.choose` puts kernels in their place, each with the signature of
what it replaces.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ds4_agent.engine.model.arrays import Array
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.hyper import Mixing, read_streams, write_streams
from ds4_agent.engine.model.indexer import IndexScores, TopRows, index_scores
from ds4_agent.engine.model.parameters import HyperWeights
from ds4_agent.engine.model.rows import taken_rows
from ds4_agent.engine.model.softmax import Piece, attend_pieces

__all__ = ["PURE", "Operations"]


@dataclass(frozen=True)
class Operations:
    """The names are those of the pure operations, whose docstrings are the contracts."""

    read_streams: Callable[[Array, HyperWeights, Array, ModelConfig], tuple[Array, Mixing]] = (
        read_streams
    )
    write_streams: Callable[[Array, Array, Mixing], Array] = write_streams
    index_scores: IndexScores = index_scores
    top_rows: TopRows | None = None  # None: `indexer` goes through the rows in tiles
    taken_rows: Callable[[Sequence[Array], Array], Array] = taken_rows
    attend_pieces: Callable[[Array, Sequence[Piece], Array, float], Array] = attend_pieces


PURE = Operations()
