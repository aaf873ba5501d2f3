"""The Metal kernels, each compared with its twin once more. In: the sizes of a model, the file that
remembers verdicts. Out: a `Finding`. Runs on the engine thread.
"""

from dataclasses import asdict
from pathlib import Path

from ds4_agent.engine.checkup.findings import Finding
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.kernels.chosen import Chosen
from ds4_agent.engine.model.kernels.machine import choose_for_machine
from ds4_agent.engine.model.kernels.verdicts import UNSUITED
from ds4_agent.engine.weights.checkpoint import stream_dtype

__all__ = ["CHECK", "check_kernels", "judged"]

CHECK = "Metal kernels"


def check_kernels(config: ModelConfig, verdicts: Path | None) -> Finding:
    """Whatever is known of them is found anew, and remembered in `verdicts`."""
    return judged(choose_for_machine(config, stream_dtype(), verdicts, again=True))


def judged(chosen: Chosen) -> Finding:
    """A kernel that is not used for a fault is a failure, though the model computes without it."""
    if not chosen.verdicts:
        return Finding(CHECK, "not made", "there is no Metal here; no kernel of ours is used")
    wrong = [v for v in chosen.verdicts if not v.is_used and v.reason != UNSUITED]
    used = [v for v in chosen.verdicts if v.is_used]
    worst = max((v.difference or 0.0 for v in used), default=0.0)
    said = f"{len(used)} of {len(chosen.verdicts)} are used, {worst:.1e} from their twins at most"
    for verdict in wrong:
        said += f"; {verdict.kernel} is not: {verdict.reason}"
    figures = {
        v.kernel: {k: x for k, x in asdict(v).items() if k != "kernel"} for v in chosen.verdicts
    }
    return Finding(CHECK, "failed" if wrong else "passed", said, figures)
