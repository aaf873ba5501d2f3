"""A `Context`: a token sequence and the model's state for it, append-only. Fork, checkpoint and
rewind share immutable values and copy nothing. All computing happens on the engine thread, one
chunk or one token a request; what a request computed is kept only once it is evaluated, so
cancelling or interrupting between requests always leaves a valid context. With a store, tokens that
any session computed before are restored instead.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ds4_agent.engine.api import Checkpoint as CheckpointProtocol
from ds4_agent.engine.api import (
    Divergence,
    GrammarState,
    PrefillProgress,
    Sampling,
    SavePoint,
    Token,
)
from ds4_agent.engine.dsml.constraints import Forced, Free
from ds4_agent.engine.errors import Cancelled, ContextFullError, EngineError
from ds4_agent.engine.sampler import choose, generator
from ds4_agent.engine.speculative.lookahead import Ahead, Lookahead
from ds4_agent.engine.steps import Steps
from ds4_agent.engine.tokenlog import TokenLog, check_ids
from ds4_agent.engine.worker import Worker, stop_if

if TYPE_CHECKING:
    from ds4_agent.engine.kvstore.keys import Kind
    from ds4_agent.engine.kvstore.store import KvStore, Saved
    from ds4_agent.engine.model.model import Model
    from ds4_agent.engine.model.state import State
    from ds4_agent.engine.model.trail import Trail

__all__ = ["Checkpoint", "ModelContext", "Runtime"]

UNCONSTRAINED = Free(frozenset())
LEAST_RESTORED = 8  # tokens, and at least one in 256 of those there are: fewer are computed sooner
SAVED_EVERY = 4096  # tokens of a long prefill, so that little is lost if it is cut short
_KINDS: "dict[SavePoint, Kind]" = {"system": "s", "prompt": "p", "answer": "a"}


@dataclass(frozen=True)
class Runtime:
    """What all contexts of an engine share."""

    worker: Worker
    model: "Model"
    vocabulary: int  # ids below it are valid
    eos: int
    context_length: int
    steps: Steps
    new_lookahead: Callable[[], Lookahead] | None = None  # None: nothing is guessed
    store: "KvStore | None" = None


@dataclass(frozen=True)
class Checkpoint:
    """A place in a context: every token appended, and how far the model has computed them."""

    log: TokenLog
    state: "State"  # of the first `state.position` tokens
    logits: NDArray[np.float32] | None  # [vocab] after those tokens; None before the first
    model: "Model"  # whose state it is
    saved: "Saved | None" = None  # of this state or of one that it goes on from

    @property
    def token_count(self) -> int:
        return len(self.log)


class ModelContext:
    """The `Context` of a real model. Everything it is stands in one immutable `Checkpoint`."""

    def __init__(self, runtime: Runtime, place: Checkpoint | None = None) -> None:
        self._runtime = runtime
        self._place = place or _beginning(runtime)
        # Between two tokens the place may stand behind it: see `_settle`.
        self._lookahead = runtime.new_lookahead() if runtime.new_lookahead else None

    @property
    def tokens(self) -> TokenLog:
        return self._place.log

    def extend(
        self,
        ids: Sequence[int],
        *,
        on_progress: Callable[[PrefillProgress], None] | None = None,
        cancel: threading.Event | None = None,
        stable: int = 0,
        opening: int = 0,
    ) -> None:
        """See `api.Context.extend`."""
        run = self._runtime
        self._settle()
        self._append(check_ids(ids, run.vocabulary, len(self.tokens), run.context_length))
        began = time.monotonic()
        restored = self._restore(stable)
        reused = kept = self._place.state.position
        total = len(self.tokens) - reused
        places: list[tuple[int, Kind]] = [(stable, "s"), (opening, "p")]

        def report() -> None:
            if on_progress is not None:
                done = self._place.state.position - reused
                rate = done / max(time.monotonic() - began, 1e-9)
                on_progress(PrefillProgress(done, total, reused, rate, restored))

        if restored and not total:
            report()
        try:
            while (position := self._place.state.position) < len(self.tokens):
                if position - kept >= SAVED_EVERY:
                    self._save("t")
                    kept = position
                ends = [place for place, _ in places if position < place]
                self._compute_chunk(cancel, stop=min(ends, default=None))
                for place, kind in places:
                    if self._place.state.position == place:
                        self._save(kind)
                        break
                report()
        except Cancelled:
            if self._place.state.position > kept:
                self._save("t")
            raise

    def sample(
        self,
        *,
        sampling: Sampling,
        grammar: GrammarState | None,
        max_tokens: int,
        cancel: threading.Event | None = None,
    ) -> Iterator[Token]:
        """See `api.Context.sample`."""
        run = self._runtime
        room = run.context_length - len(self.tokens)
        if room < 1:
            raise ContextFullError(len(self.tokens) + 1, run.context_length)
        return self._sample(sampling, grammar, min(max_tokens, room), cancel)

    def _sample(
        self,
        sampling: Sampling,
        grammar: GrammarState | None,
        count: int,
        cancel: threading.Event | None,
    ) -> Iterator[Token]:
        try:
            yield from self._sampled(sampling, grammar, count, cancel)
        finally:
            self._runtime.steps.leave(self)
            try:
                self._settle()
            except EngineError:  # closed or failed: what was guessed right is computed again
                self._forget()

    def _sampled(
        self,
        sampling: Sampling,
        grammar: GrammarState | None,
        count: int,
        cancel: threading.Event | None,
    ) -> Iterator[Token]:
        rng = generator(sampling, len(self.tokens))
        while count > 0:
            constraint = grammar.constraint() if grammar is not None else UNCONSTRAINED
            if isinstance(constraint, Forced):
                # Appended one by one as they are yielded, so that a caller who stops in the middle
                # has in `tokens` just what it saw; computed in one batch by the next request.
                run = [Token(i, forced=True) for i in constraint.ids[:count]]
            else:
                drafted = self._compute_pending(grammar, count, cancel)
                drawn = choose(self._logits(), constraint, sampling, rng)
                look = self._lookahead
                run = [Token(drawn, False, drafted, look is not None and look.came(drawn))]
            for token in run:
                stop_if(cancel)
                self._append((token.id,))
                if grammar is not None:
                    grammar.accept(token.id)
                count -= 1
                yield token
                if token.id == self._runtime.eos:
                    return

    def holding(self, ids: Sequence[int]) -> "ModelContext":
        """A context of its own that goes on with `ids`, not computed yet. Raises as `extend`."""
        run = self._runtime
        packed = check_ids(ids, run.vocabulary, len(self.tokens), run.context_length)
        other = self.fork()
        other._append(packed)
        return other

    def fork(self) -> "ModelContext":
        """See `api.Context.fork`."""
        self._settle()
        return ModelContext(self._runtime, self._place)

    def checkpoint(self) -> Checkpoint:
        """See `api.Context.checkpoint`."""
        self._settle()
        return self._place

    def rewind(self, checkpoint: CheckpointProtocol) -> None:
        """See `api.Context.rewind`. Raises EngineError for a checkpoint of another engine."""
        if not isinstance(checkpoint, Checkpoint) or checkpoint.model is not self._runtime.model:
            raise EngineError("this checkpoint belongs to another model; start a new session")
        self._place = checkpoint
        make = self._runtime.new_lookahead
        self._lookahead = make() if make is not None else None

    def at_hand(self) -> int:
        """See `api.Context.at_hand`."""
        self._settle()
        computed, store = self._place.state.position, self._runtime.store
        return computed if store is None else max(computed, store.stored(self.tokens))

    def save(self, point: SavePoint) -> None:
        """See `api.Context.save`."""
        self._settle()
        self._save(_KINDS[point])

    def divergence(self) -> Divergence | None:
        """See `api.Context.divergence`."""
        store = self._runtime.store
        return None if store is None else store.divergence(self.tokens)

    def _save(self, kind: "Kind") -> None:
        place, store = self._place, self._runtime.store
        if store is not None and place.logits is not None:
            saved = store.save(kind, place.log, place.state, place.logits, place.saved)
            self._place = replace(place, saved=saved)

    def _restore(self, stable: int) -> int:
        """Take over the longest stored prefix; the tokens that need not be computed for it."""
        place, store = self._place, self._runtime.store
        computed = place.state.position
        least = computed + max(LEAST_RESTORED, computed // 256)
        if store is None or len(place.log) < least:
            return 0
        from ds4_agent.engine.kvstore.store import Saved

        found = store.longest(place.log, least)
        if found is None:
            return 0
        if computed < stable < found.state.position:
            store.use_system(place.log[:stable])
        saved = Saved(extents=found.extents)
        self._place = replace(place, state=found.state, logits=found.logits, saved=saved)
        return found.state.position - computed

    def _append(self, ids: Sequence[int]) -> None:
        self._place = replace(self._place, log=self._place.log.appended(ids))

    def _compute_pending(
        self, grammar: GrammarState | None, count: int, cancel: threading.Event | None
    ) -> int:
        """Have the logits of the last token, `count` more to come; the guesses computed with it."""
        steps, look, drafted = self._runtime.steps, self._lookahead, 0
        if look is not None and look.ahead is not None and look.ahead.takes(self.tokens):
            return 0
        self._settle()
        while (pending := len(self.tokens) - self._place.state.position) > 0:
            if pending == 1 and steps.are_gathered:
                self._step(steps, cancel)
            elif pending == 1 and look is not None:
                drafted = self._look_ahead(
                    look, look.guess(self.tokens, grammar, count - 1), cancel
                )
                break
            else:
                steps.leave(self)
                self._compute_chunk(cancel)
        return drafted

    def _look_ahead(
        self, look: Lookahead, guesses: Sequence[int], cancel: threading.Event | None
    ) -> int:
        """Compute the one pending token, and `guesses` behind it in the same pass."""
        began = time.monotonic()
        if not guesses and look.layer is None:
            self._compute_chunk(cancel)
        else:
            stop_if(cancel)
            run, place = self._runtime, self._place
            ids = [place.log[-1], *guesses]
            trail, logits = run.worker.call(_pass_over, run, ids, place.state)
            look.ahead = Ahead(place.state.position, ids, logits, trail)
        look.pace.took(1 + len(guesses), time.monotonic() - began)
        return len(guesses)

    def _logits(self) -> NDArray[np.float32]:
        """[vocab] behind the last token, computed."""
        ahead = self._lookahead.ahead if self._lookahead is not None else None
        logits = self._place.logits if ahead is None else ahead.logits[ahead.taken - 1]
        if logits is None:
            raise EngineError("there is no token to go on from; extend the context first")
        return logits

    def _settle(self) -> None:
        """Take the state of the guesses that came true as one's own, as if none had been made: what
        was not yet drawn behind stays pending."""
        ahead = self._lookahead.ahead if self._lookahead is not None else None
        if ahead is not None:
            state = self._runtime.worker.call(_state_after, ahead.trail, ahead.taken)
            # A copy: the row must not keep those of all guesses alive.
            logits = ahead.logits[ahead.taken - 1].copy()
            self._place = replace(self._place, state=state, logits=logits)
            if self._lookahead is not None and self._lookahead.layer is not None:
                self._lookahead.layer.saw(ahead.start, ahead.trail.streams, ahead.taken)
            self._forget()

    def _forget(self) -> None:
        if self._lookahead is not None:
            self._lookahead.ahead = None

    def _step(self, steps: Steps, cancel: threading.Event | None) -> None:
        """Compute the one pending token, beside those of other contexts, and keep it."""
        stop_if(cancel)
        place = self._place
        logits, state = steps.step(self, place.log[-1], place.state)
        self._place = replace(place, state=state, logits=logits)

    def _compute_chunk(self, cancel: threading.Event | None, stop: int | None = None) -> None:
        """Compute the next chunk of pending tokens, none from `stop` on, and keep it."""
        stop_if(cancel)
        run, place = self._runtime, self._place
        logits, state = run.worker.call(_next_chunk, run, place.log, place.state, stop)
        self._place = replace(place, state=state, logits=logits)


def _beginning(runtime: Runtime) -> Checkpoint:
    state = runtime.worker.call(runtime.model.init_state)
    return Checkpoint(TokenLog(), state, None, runtime.model)


def _next_chunk(
    run: Runtime, log: TokenLog, state: "State", stop: int | None
) -> tuple[NDArray[np.float32], "State"]:
    """Runs on the engine thread: (logits [vocabulary], state) after the next chunk, evaluated."""
    from ds4_agent.engine.model.prefill import CHUNK_TOKENS, prefill

    # One token more than a chunk tells `prefill` that others follow, so it ends on a block.
    end = state.position + CHUNK_TOKENS + 1
    ids = log[state.position : end if stop is None else min(end, stop)]
    logits, after = prefill(run.model, ids, state, on_chunk=lambda done, state: False)
    # A vocabulary padded beyond the tokenizer's has rows that no id stands for.
    return np.array(logits, dtype=np.float32)[: run.vocabulary], after


def _pass_over(
    run: Runtime, ids: Sequence[int], state: "State"
) -> "tuple[Trail, NDArray[np.float32]]":
    """Runs on the engine thread: the pass, evaluated, and its logits [ids, vocabulary]."""
    trail = run.model.pass_over(ids, state)
    trail.evaluate()
    return trail, np.array(trail.logits, dtype=np.float32)[:, : run.vocabulary]


def _state_after(trail: "Trail", count: int) -> "State":
    """Runs on the engine thread: the state after the first `count` ids of a pass, evaluated."""
    from ds4_agent.engine.model.state import evaluate

    state = trail.after(count)
    evaluate(trail.logits, state)
    return state
