"""The engine's public surface: the Protocols a context and an engine fulfil and the plain values
that cross between the engine thread and everyone else. Token ids in, token ids out; nothing here
imports MLX, touches a disk or knows about messages and tools.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from ds4_agent.engine.dsml.constraints import Constraint
    from ds4_agent.engine.dsml.tokenizer import Tokenizer

__all__ = [
    "Checkpoint",
    "Context",
    "Divergence",
    "Efforts",
    "Engine",
    "GrammarState",
    "LoadProgress",
    "PrefillProgress",
    "Sampling",
    "SavePoint",
    "StoreOptions",
    "Token",
]

SavePoint = Literal["system", "prompt", "answer"]
"""Why a place is kept on disk: the end of a system prompt (kept longest), a prompt, an answer."""

Efforts = Mapping[str, str | None]
"""The levels of thinking a model was trained with, each with the reasoning effort that its prompt
states for it (`dsml.wording.EFFORTS`); None: it does not think. "off" is always there."""


@dataclass(frozen=True)
class Token:
    """One id of the model's output. `forced`: the grammar left no choice, nothing was sampled.

    `drafted`: guessed ids that were computed in the pass whose logits this one is the first to be
    drawn from; `accepted`: it is one of them, so no pass of its own was needed for what follows.
    """

    id: int
    forced: bool = False
    drafted: int = 0
    accepted: bool = False


@dataclass(frozen=True)
class Sampling:
    """How an id is drawn from the logits. `temperature` 0 is greedy, whatever else is set.

    `top_p` keeps the smallest set of ids with at least that probability, `min_p` the ids at least
    that fraction as likely as the likeliest. `seed` None draws from the system's entropy.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class StoreOptions:
    """Where states are kept on disk, and how many bytes they may take there."""

    directory: Path
    budget: int


@dataclass(frozen=True)
class LoadProgress:
    """While a model is loaded: `done` of `total` layers, the two ends counted as one, and
    `bytes_done` of `bytes_total` read of its files."""

    done: int
    total: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True)
class PrefillProgress:
    """After a finished chunk: `done` of `total` new tokens, over `reused` tokens already computed.

    `restored` of the `reused` tokens were read from disk by this very extend; where that was all
    there was to do, it is reported once with `total` 0. `tokens_per_second` is the mean since this
    extend began.
    """

    done: int
    total: int
    reused: int
    tokens_per_second: float
    restored: int = 0


@dataclass(frozen=True)
class Divergence:
    """The first token in which a context differs from a stored system prompt."""

    position: int
    own: int | None  # the context's token there; None where it ends before
    stored: int


class Checkpoint(Protocol):
    """A place in a context one can return to. Opaque, immutable; keeping it copies nothing."""

    @property
    def token_count(self) -> int: ...


class GrammarState(Protocol):
    """What may come next in one model step; told of every id, sampled or forced, in order."""

    def constraint(self) -> "Constraint": ...

    def accept(self, token_id: int) -> None: ...

    def copy(self) -> "GrammarState":
        """One that goes its own way from here."""
        ...


class Context(Protocol):
    """A token sequence and the model's state for it. Append-only, used by one caller at a time."""

    @property
    def tokens(self) -> Sequence[int]:
        """Every id appended so far, computed or still pending."""
        ...

    def extend(
        self,
        ids: Sequence[int],
        *,
        on_progress: Callable[[PrefillProgress], None] | None = None,
        cancel: threading.Event | None = None,
        stable: int = 0,
        opening: int = 0,
    ) -> None:
        """Append `ids` and compute them in chunks, or restore what is stored of them.

        `stable`: the context's first so many tokens are a system prompt, whose place is saved when
        it is computed; `opening`: so is the place behind so many, where the first prompt follows;
        0: none. `on_progress` runs in the caller's thread.

        Raises ContextFullError or TokenRangeError before anything is appended. Raises Cancelled
        after a finished chunk; the ids are in `tokens` then, and the ones not computed are computed
        by the next `extend` or `sample`.
        """
        ...

    def sample(
        self,
        *,
        sampling: Sampling,
        grammar: GrammarState | None,
        max_tokens: int,
        cancel: threading.Event | None = None,
    ) -> Iterator[Token]:
        """The model's next tokens, each already in `tokens` when it is yielded.

        Ends after EOS (yielded), after `max_tokens`, or where the context is full; raises
        ContextFullError where not even one token fits, and Cancelled between two tokens. A run
        the grammar forces is yielded id by id and computed in one batch. Breaking out is safe.
        """
        ...

    def fork(self) -> "Context":
        """An independent context that starts from this one's tokens and state. Copies nothing."""
        ...

    def checkpoint(self) -> Checkpoint:
        """This place in the context. Copies nothing."""
        ...

    def rewind(self, checkpoint: Checkpoint) -> None:
        """Back to a checkpoint of this context, or of one it was forked from."""
        ...

    def at_hand(self) -> int:
        """How many of the tokens need not be computed: their state is here or, as the names in the
        store have it, on disk. Reads no state."""
        ...

    def save(self, point: SavePoint) -> None:
        """Keep this place on disk, computed as far as it is. Returns at once, never raises; does
        nothing where there is no store."""
        ...

    def divergence(self) -> Divergence | None:
        """Where these tokens part from the stored system prompt that is most like them; None where
        one is their beginning, or there is nothing to compare with. Reads the disk."""
        ...


class Engine(Protocol):
    """A loaded model. Contexts of one engine share its thread and weights."""

    @property
    def model_name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer and numerics: equal means the same states."""
        ...

    @property
    def context_length(self) -> int: ...

    @property
    def tokenizer(self) -> "Tokenizer": ...

    @property
    def default_thinking(self) -> str: ...

    @property
    def efforts(self) -> Efforts: ...

    @property
    def default_profile(self) -> str: ...

    @property
    def default_sampling(self) -> Sampling: ...

    @property
    def speculation(self) -> str:
        """One line for the user: whether guessing ahead is on, and what was measured of it."""
        ...

    @property
    def notice(self) -> str:
        """One line for the user about how this engine was opened, else ""."""
        ...

    @property
    def store_failure(self) -> str:
        """One line for the user where states should be kept on disk and cannot, else ""."""
        ...

    def new_context(self, ids: Sequence[int] = ()) -> Context:
        """A context that holds `ids`, none of them computed: the next `extend` or `sample` does.

        Raises ContextFullError or TokenRangeError.
        """
        ...

    def batching(self, limit: int) -> AbstractContextManager[None]:
        """While it is open, contexts that sample at the same time, each in a thread of its own,
        have up to `limit` of their single-token steps computed as one batch. Every context gets
        the very tokens it would get alone; a context alone waits for nobody."""
        ...

    def close(self) -> None:
        """End the engine thread and free the weights. Safe to call twice."""
        ...
