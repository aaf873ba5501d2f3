"""A context that has already computed how the next tokens begin.

In: a context, and a fork of it that went on with what all items have in common. Out: a `Context`
with the tokens of the first whose next `extend`, where its ids begin in that way, computes only the
others. The ids in it are the same as without, so are the model's answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ds4_agent.engine.api import PrefillProgress
from ds4_agent.engine.errors import ContextFullError

if TYPE_CHECKING:
    from ds4_agent.engine.api import (
        Checkpoint,
        Context,
        Divergence,
        GrammarState,
        Sampling,
        SavePoint,
        Token,
    )

__all__ = ["HeadStart"]


class HeadStart:
    """The `Context` of an item (see `engine.api`). Not for two threads at once."""

    def __init__(self, context: Context, ahead: Context) -> None:
        """Both stay as they are: the item works on forks of them."""
        self._context = context.fork()
        self._ahead: Context | None = ahead

    @property
    def tokens(self) -> Sequence[int]:
        return self._context.tokens

    def extend(
        self,
        ids: Sequence[int],
        *,
        on_progress: Callable[[PrefillProgress], None] | None = None,
        cancel: threading.Event | None = None,
        stable: int = 0,
        opening: int = 0,
    ) -> None:
        """See `Context.extend`. What was ahead is reported as restored."""
        ahead, self._ahead = self._ahead, None
        saved = 0 if ahead is None else len(ahead.tokens) - len(self.tokens)
        if ahead is None or list(ahead.tokens[len(self.tokens) :]) != list(ids[:saved]):
            self._context.extend(
                ids, on_progress=on_progress, cancel=cancel, stable=stable, opening=opening
            )
            return

        def report(progress: PrefillProgress) -> None:
            if on_progress is not None:
                on_progress(replace(progress, restored=progress.restored + saved))

        fork = ahead.fork()
        before, self._context = self._context, fork
        try:
            fork.extend(
                ids[saved:], on_progress=report, cancel=cancel, stable=stable, opening=opening
            )
        except ContextFullError:
            self._context = before  # nothing is appended
            raise

    def sample(
        self,
        *,
        sampling: Sampling,
        grammar: GrammarState | None,
        max_tokens: int,
        cancel: threading.Event | None = None,
    ) -> Iterator[Token]:
        self._ahead = None
        return self._context.sample(
            sampling=sampling, grammar=grammar, max_tokens=max_tokens, cancel=cancel
        )

    def fork(self) -> Context:
        return self._context.fork()

    def checkpoint(self) -> Checkpoint:
        return self._context.checkpoint()

    def rewind(self, checkpoint: Checkpoint) -> None:
        self._ahead = None
        self._context.rewind(checkpoint)

    def at_hand(self) -> int:
        return self._context.at_hand()

    def save(self, point: SavePoint) -> None:
        """Nothing: a thousand items would drive out of the cache what others come back to."""

    def divergence(self) -> Divergence | None:
        return self._context.divergence()
