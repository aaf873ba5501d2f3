"""The `scripted:FILE` engine: plays the steps of a JSONL file through the same Engine and Context
as a real model, for tests of everything but the model. A line is one model step. Imports no MLX,
computes nothing, ignores sampling and grammar, so it can play what a real model never could.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from ds4_agent.engine.api import Checkpoint as CheckpointProtocol
from ds4_agent.engine.api import Efforts, GrammarState, PrefillProgress, Sampling, SavePoint, Token
from ds4_agent.engine.dsml.segments import EOS
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.errors import ContextFullError, EngineError, ScriptError
from ds4_agent.engine.script import Step, newest_texts, read_script
from ds4_agent.engine.tokenlog import TokenLog, check_ids
from ds4_agent.engine.worker import stop_if

__all__ = ["ScriptedContext", "ScriptedEngine"]

CONTEXT_LENGTH = 1_048_576


class ScriptedEngine:
    """An `Engine` over a script. All its contexts play from the one script, in order."""

    def __init__(
        self, path: Path, tokenizer: Tokenizer, context_length: int = CONTEXT_LENGTH
    ) -> None:
        """Reads and checks the whole script; raises ScriptError naming file and line."""
        self.model_name = f"scripted:{path}"
        self.fingerprint = "scripted"
        self.context_length = context_length
        self.tokenizer = tokenizer
        self.default_thinking = "off"
        self.efforts: Efforts = {"off": None, "low": "low", "high": "high", "max": "max"}
        self.default_profile = "nano"
        self.default_sampling = Sampling(temperature=0.0)
        self.speculation = "speculation is off: a script has nothing to compute"
        self.store_failure = ""
        self.notice = ""
        self._path = path
        self._steps = read_script(path, tokenizer)
        self._played = 0
        self._lock = threading.Lock()

    def new_context(self, ids: Sequence[int] = ()) -> "ScriptedContext":
        check_ids(ids, self.tokenizer.vocab_size, 0, self.context_length)
        return ScriptedContext(self, Place(TokenLog().appended(ids), len(ids)))

    def batching(self, limit: int) -> AbstractContextManager[None]:
        """Nothing to gather: a script costs no step."""
        return nullcontext()

    def close(self) -> None:
        """Nothing to free."""

    def next_step(self, newest: Sequence[int]) -> Step:
        """The next step of the script, if its `expect` finds its regex in the `newest` ids."""
        with self._lock:
            if self._played == len(self._steps):
                raise ScriptError(
                    f"{self._path}: all {len(self._steps)} steps are used up and the run goes on; "
                    "add a line, or let the last one be an answer without a call"
                )
            step = self._steps[self._played]
            self._played += 1
        texts = newest_texts(newest, self.tokenizer)
        if step.expect is not None and not any(step.expect.search(text) for text in texts):
            raise ScriptError(
                f"{self._path}:{step.line}: expected {step.expect.pattern!r} in the newest tool "
                f"result or prompt, which is {_shortened(texts[0])!r}"
            )
        return step


@dataclass(frozen=True)
class Place:
    """The `Checkpoint` of a scripted context. `answered`: tokens that were there, or played, when
    the last step ended; what comes after them is new to the script."""

    log: TokenLog
    answered: int = 0

    @property
    def token_count(self) -> int:
        return len(self.log)


class ScriptedContext:
    """The `Context` of a script: keeps every promise of `api.Context` but computes nothing."""

    def __init__(self, engine: ScriptedEngine, place: Place | None = None) -> None:
        self._engine = engine
        self._place = place or Place(TokenLog())

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
        """See `api.Context.extend`. Reports all of `ids` as one chunk, at no speed."""
        held = len(self.tokens)
        check_ids(ids, self._engine.tokenizer.vocab_size, held, self._engine.context_length)
        self._append(ids)
        stop_if(cancel)
        if on_progress is not None and ids:
            on_progress(PrefillProgress(len(ids), len(ids), held, 0.0))

    def sample(
        self,
        *,
        sampling: Sampling,
        grammar: GrammarState | None,
        max_tokens: int,
        cancel: threading.Event | None = None,
    ) -> Iterator[Token]:
        """Play the next step; see `api.Context.sample`. A step counts as played once begun.

        Raises ScriptError when the script is used up or its `expect` is not met.
        """
        room = self._engine.context_length - len(self.tokens)
        if room < 1:
            raise ContextFullError(len(self.tokens) + 1, self._engine.context_length)
        step = self._engine.next_step(self.tokens[self._place.answered :])
        self._place = replace(self._place, answered=len(self.tokens))
        return self._play(step, min(max_tokens, room), cancel)

    def _play(self, step: Step, count: int, cancel: threading.Event | None) -> Iterator[Token]:
        for index, token_id in enumerate(step.ids[:count]):
            if index % step.chunk == 0:
                _pause(step.delay_seconds, cancel)
            stop_if(cancel)
            self._append((token_id,))
            self._place = replace(self._place, answered=len(self.tokens))
            yield Token(token_id)
            if token_id == self._engine.tokenizer.control(EOS):
                return

    def fork(self) -> "ScriptedContext":
        return ScriptedContext(self._engine, self._place)

    def checkpoint(self) -> Place:
        return self._place

    def rewind(self, checkpoint: CheckpointProtocol) -> None:
        """Back in the tokens; the script itself only goes forward."""
        if not isinstance(checkpoint, Place):
            raise EngineError("this checkpoint belongs to another model; start a new session")
        self._place = checkpoint

    def at_hand(self) -> int:
        """See `api.Context.at_hand`. A script computes nothing."""
        return len(self.tokens)

    def save(self, point: SavePoint) -> None:
        """See `api.Context.save`. A script has no state to keep."""

    def divergence(self) -> None:
        """See `api.Context.divergence`."""

    def _append(self, ids: Sequence[int]) -> None:
        self._place = replace(self._place, log=self._place.log.appended(ids))


def _pause(seconds: float, cancel: threading.Event | None) -> None:
    """Wait; a cancel ends it at once."""
    if seconds > 0:
        (cancel or threading.Event()).wait(seconds)


def _shortened(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
