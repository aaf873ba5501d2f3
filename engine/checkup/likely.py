"""How likely a model finds a given continuation. In: a model, the ids before it, its ids. Out:
`Likely`. Runs on the engine thread; a long beginning is computed in chunks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ds4_agent.engine.errors import EngineError
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.prefill import prefill
from ds4_agent.engine.model.state import State, evaluate

__all__ = ["Likely", "likely"]


@dataclass(frozen=True)
class Likely:
    """Of a continuation, each of whose ids the model had to say from those before it."""

    ids: int
    same: int  # of them, those the model finds the most likely
    log_p: float  # natural, the mean of them


def likely(
    model: Model,
    beginning: Sequence[int],
    continuation: Sequence[int],
    stop: Callable[[], None] = lambda: None,
) -> Likely:
    """`beginning` and `continuation`: at least one id each. `stop` is called between chunks and may
    raise. Raises EngineError where the model says what is no number."""

    def go_on(done: int, state: State) -> bool:
        stop()
        return True

    state = model.init_state()
    if len(beginning) > 1:
        _, state = prefill(model, beginning[:-1], state, on_chunk=go_on)
    lazy, state = model.logits_all([beginning[-1], *continuation[:-1]], state)
    evaluate(lazy, state)
    logits = np.array(lazy, dtype=np.float32).astype(np.float64)  # [ids, vocab]
    if not np.isfinite(logits).all():
        raise EngineError(
            "the model's logits are not all numbers; `ds4-agent model verify` looks for the tensor"
        )
    targets = np.array(continuation)
    highest = logits.max(axis=-1)
    log_p = logits[np.arange(len(targets)), targets] - highest
    log_p -= np.log(np.exp(logits - highest[:, None]).sum(axis=-1))
    same = logits.argmax(axis=-1) == targets
    return Likely(len(targets), int(same.sum()), float(log_p.mean()))
