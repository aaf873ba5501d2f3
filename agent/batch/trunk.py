"""What all items of a batch share, computed once: the session's prompt, the worked example, and the
words their own prompts begin with.

In: an engine, the session's prompt, the prompts of the items. Out: contexts that items start from,
and exact counts. P tokens are computed here; an item adds only its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from ds4_agent.agent.batch.head_start import HeadStart
from ds4_agent.engine.dsml.encode import assistant_header, user_segments

if TYPE_CHECKING:
    from ds4_agent.engine.api import Context, Engine, PrefillProgress
    from ds4_agent.engine.dsml.segments import Segment

__all__ = ["Trunk", "plant", "turn_ids"]

LEAST_ITEM = 1  # tokens of a prompt that are left to its item, so that it has something to compute


@dataclass(frozen=True)
class Trunk:
    """`context` ends where an item's own turn begins; `ahead` goes on with the `common` tokens that
    all items' turns begin with. `prefix`: tokens of the session's prompt. `prefilled`: tokens
    computed for all this so far, `restored` those read from disk instead."""

    context: Context
    ahead: Context
    prefix: int
    common: int
    prefilled: int
    restored: int

    @property
    def example(self) -> int:
        """Tokens of the worked example."""
        return len(self.context.tokens) - self.prefix

    @property
    def length(self) -> int:
        """Tokens an item starts from: P."""
        return len(self.ahead.tokens)

    def item_context(self) -> HeadStart:
        """A context for one item."""
        return HeadStart(self.context, self.ahead)

    def with_example(self, example: Context, prompts: Iterable[Sequence[int]]) -> Trunk:
        """The trunk that goes on with a context that began as this one's."""
        return _common_start(replace(self, context=example.fork()), prompts, _Count(), None)

    def with_example_ids(
        self, ids: Sequence[int], prompts: Iterable[Sequence[int]], cancel: threading.Event
    ) -> Trunk:
        """The same from the ids of an example that is written down."""
        count = _Count()
        context = self.context.fork()
        context.extend(ids, on_progress=count.note, cancel=cancel)
        return _common_start(replace(self, context=context), prompts, count, cancel)


def plant(
    engine: Engine,
    prefix: Sequence[Segment],
    stable: Sequence[Segment],
    prompts: Iterable[Sequence[int]],
    cancel: threading.Event,
    on_progress: Callable[[int, int], None],
) -> Trunk:
    """Compute the beginning of a session, or take it from disk as every session does.

    `stable` is the part of `prefix` that all sessions share; `on_progress(done, total)`. Raises
    EngineError, Cancelled.
    """
    context = engine.new_context()
    ids = engine.tokenizer.encode(list(prefix))
    count = _Count(on_progress)
    own = len(engine.tokenizer.encode(list(stable)))
    context.extend(ids, on_progress=count.note, cancel=cancel, stable=own)
    context.save("prompt")
    trunk = Trunk(context, context, len(ids), 0, 0, 0)
    return _common_start(trunk, prompts, count, cancel)


def turn_ids(engine: Engine, prompt: str, *, thinking: bool) -> list[int]:
    """The ids of an item's turn, as its agent encodes them."""
    return engine.tokenizer.encode([*user_segments(prompt), *assistant_header(thinking)])


class _Count:
    """Adds up what several extends computed and restored."""

    def __init__(self, tell: Callable[[int, int], None] = lambda done, total: None) -> None:
        self.prefilled = self.restored = 0
        self._before = (0, 0)
        self._tell = tell

    def note(self, progress: PrefillProgress) -> None:
        self.prefilled = self._before[0] + progress.done
        self.restored = self._before[1] + progress.restored
        self._tell(progress.done, progress.total)

    def next(self) -> None:
        """Another extend begins."""
        self._before = (self.prefilled, self.restored)


def _common_start(
    trunk: Trunk,
    prompts: Iterable[Sequence[int]],
    count: _Count,
    cancel: threading.Event | None,
) -> Trunk:
    common = _common(list(prompts))
    ahead = trunk.context.fork()
    count.next()
    ahead.extend(common, on_progress=count.note, cancel=cancel)
    return replace(
        trunk,
        ahead=ahead,
        common=len(common),
        prefilled=trunk.prefilled + count.prefilled,
        restored=trunk.restored + count.restored,
    )


def _common(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The ids that all begin with, less what every item has to keep for itself."""
    if not prompts:
        return []
    first, last = (
        min(map(tuple, prompts)),
        max(map(tuple, prompts)),
    )  # in order: what these two share, all share
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    shared = [own for own, _ in pairs]
    return shared[: min(map(len, prompts)) - LEAST_ITEM]
