"""What was decided about the kernels of a machine, as a value. It imports nothing that decides."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds4_agent.engine.model.operations import Operations

if TYPE_CHECKING:
    from ds4_agent.engine.model.kernels.verdicts import Verdict

__all__ = ["Chosen"]


@dataclass(frozen=True)
class Chosen:
    """What a model is run with."""

    operations: Operations
    verdicts: "tuple[Verdict, ...]"  # of every kernel; none where there is no Metal
    notice: str = ""  # for the user, once: which kernels were tried now and are not used
