"""The transcript: the only writer of a context. Everything the model reads or samples goes through
here, once, in order, into the context, the session's token log and the `--trace-tokens` file.
Never re-renders, trims or reorders; an id that is appended stays.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ds4_agent.agent.errors import UsageError
from ds4_agent.engine.errors import ContextFullError

if TYPE_CHECKING:
    from ds4_agent.engine.api import (
        Context,
        GrammarState,
        PrefillProgress,
        Sampling,
        SavePoint,
        Token,
    )
    from ds4_agent.engine.dsml.segments import Segment
    from ds4_agent.engine.dsml.tokenizer import Tokenizer
    from ds4_agent.sessions.log import SessionLog

__all__ = ["Place", "Trace", "Transcript", "ids_with_kinds"]


class Trace:
    """The `--trace-tokens` file: one JSON object an id, `{"index","id","kind","text"}`."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError if the file cannot be created."""
        try:
            self._file: TextIO | None = path.open("w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        self.failure = ""
        self._path = path

    def write(self, index: int, token_id: int, kind: str, piece: bytes) -> None:
        """One id. After a failure (a full disk) the file ends and `failure` says so."""

        if self._file is None:
            return
        text = piece.decode("utf-8", "surrogateescape")
        record = {"index": index, "id": token_id, "kind": kind, "text": text}
        try:
            self._file.write(json.dumps(record) + "\n")
        except OSError as error:
            self._end(error)

    def flush(self) -> None:
        try:
            if self._file is not None:
                self._file.flush()
        except OSError as error:
            self._end(error)

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()

    def _end(self, error: OSError) -> None:
        self.failure = f"the token trace ends here: {self._path}: {error.strerror or error}"
        self._file = None


@dataclass(frozen=True)
class Place:
    """A branch of the token log, and a context that holds its first ids."""

    context: Context
    branch: int = 0


class Transcript:
    """One context and the records of it. Used by one thread at a time, like the context."""

    def __init__(
        self,
        place: Place,
        tokenizer: Tokenizer,
        limit: int,
        log: SessionLog | None = None,
        trace: Trace | None = None,
        *,
        stable: Sequence[int] = (),
        opening: Sequence[int] = (),
        fingerprint: str = "",
        speculation: Callable[[], str] = str,
        next_branch: int = 1,
        first: Mapping[str, Any] | None = None,
    ) -> None:
        """`stable`: the ids that all sessions of this model and these tools begin with; `opening`:
        those of this one before its first prompt, where going back leads to; `fingerprint` names
        the engine in the log, and `speculation` gives what it says of its guesses; `next_branch` is
        the first number no branch of the log has; `first` is what the token log has to say before
        its next record, of a session taken up again."""
        self.tokenizer = tokenizer
        self.limit = limit
        self.branch = place.branch
        self._context = place.context
        self._log = log
        self._trace = trace
        self._stable, self._opening = list(stable), list(opening)
        self._saves = True
        self._fingerprint = fingerprint
        self._speculation = speculation
        self._next_branch = next_branch
        self._first = first

    def fork(self) -> Transcript:
        """An independent transcript that begins as this one; what it appends is kept nowhere."""
        fork = Transcript(Place(self._context.fork()), self.tokenizer, self.limit)
        fork._saves = False
        return fork

    @property
    def place(self) -> Place:
        """Where the transcript stands; it can be gone back to, and begun from."""
        return Place(self._context.fork(), self.branch)

    def begin(self, start: Place, why: str) -> None:
        """Go on in a new branch that starts as `start`, which may be of any branch and of another
        context of the same engine. `why`: see `sessions.saved`."""
        number, self._next_branch = self._next_branch, self._next_branch + 1
        begun = {"branch": number, "from": start.branch, "at": len(start.context.tokens)}
        self._branches({**begun, "why": why, "fingerprint": self._fingerprint})
        self._context, self.branch = start.context.fork(), number

    def go_back(self, place: Place) -> None:
        """Go on at the end of another branch."""
        self._branches({"switch": place.branch})
        self._context, self.branch = place.context.fork(), place.branch

    @property
    def length(self) -> int:
        """Tokens in the context."""
        return len(self._context.tokens)

    def encode(self, segments: Sequence[Segment]) -> list[tuple[int, str]]:
        """The ids of a prompt, each with the kind of its segment; see `ids_with_kinds`."""
        return ids_with_kinds(self.tokenizer, segments)

    def append(
        self,
        encoded: Sequence[tuple[int, str]],
        *,
        on_progress: Callable[[PrefillProgress], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        """Append what `encode` gave and compute it.

        Raises ContextFullError with nothing appended; Cancelled with everything appended, the
        chunks finished so far computed.
        """
        start = self.length
        if start + len(encoded) > self.limit:
            raise ContextFullError(start + len(encoded), self.limit)
        for kind, group in groupby(enumerate(encoded, start), key=lambda item: item[1][1]):
            self._note(kind, [(index, token_id) for index, (token_id, _) in group])
        self.flush()
        ids = [token_id for token_id, _ in encoded]
        stable, opening = self._length_of(self._stable, ids), self._length_of(self._opening, ids)
        self._context.extend(
            ids, on_progress=on_progress, cancel=cancel, stable=stable, opening=opening
        )

    def _length_of(self, beginning: list[int], ids: Sequence[int]) -> int:
        """Its tokens, if the context and `ids` begin so; else 0: a session begun with other tools,
        or on another day."""
        own = len(beginning)
        return own if [*self._context.tokens[:own], *ids][:own] == beginning else 0

    def save(self, point: SavePoint) -> None:
        """Keep the state of this place on disk, where there is a store. Returns at once."""
        if self._saves:
            self._context.save(point)

    def slowness(self) -> tuple[str, str]:
        """Why it takes long: `divergence`, and what the engine says of its guesses."""
        return self.divergence(), self._speculation()

    def divergence(self) -> str:
        """Where these tokens part from the stored system prompt most like them, in one sentence;
        "" where one is their beginning, or there is none."""
        found = self._context.divergence()
        if found is None:
            return ""
        stored = self._quoted(found.stored)
        own = "ends" if found.own is None else f"has {self._quoted(found.own)}"
        return (
            f"the stored system prompt most like this one has {stored} at token "
            f"{found.position:,}, where this one {own}"
        )

    def _quoted(self, token_id: int) -> str:
        return repr(self.tokenizer.piece(token_id).decode("utf-8", "replace"))

    def sample(
        self,
        *,
        sampling: Sampling,
        grammar: GrammarState | None,
        max_tokens: int,
        cancel: threading.Event,
    ) -> Generator[Token, None, None]:
        """The model's next tokens, each recorded before it is yielded."""
        tokens = self._context.sample(
            sampling=sampling, grammar=grammar, max_tokens=max_tokens, cancel=cancel
        )
        try:
            for token in tokens:
                kind = "forced" if token.forced else "sampled"
                self._note(kind, [(self.length - 1, token.id)])
                yield token
        finally:
            self.flush()

    def flush(self) -> None:
        """Hand what is recorded to the operating system."""
        if self._log is not None:
            self._log.flush()
        if self._trace is not None:
            self._trace.flush()

    def _branches(self, record: Mapping[str, Any]) -> None:
        if self._log is not None:
            self._catch_up(self._log)
            self._log.branch(record)

    def _catch_up(self, log: SessionLog) -> None:
        if self._first is not None:
            first, self._first = self._first, None
            log.branch(first)

    def _note(self, kind: str, ids: Sequence[tuple[int, int]]) -> None:
        if self._log is not None:
            self._catch_up(self._log)
            self._log.tokens(kind, [token_id for _, token_id in ids], at=ids[0][0])
        if self._trace is not None:
            for index, token_id in ids:
                self._trace.write(index, token_id, kind, self.tokenizer.piece(token_id))


def ids_with_kinds(tokenizer: Tokenizer, segments: Sequence[Segment]) -> list[tuple[int, str]]:
    """The ids of a prompt, each with the kind of its segment.

    Neighbouring template and data segments are one text for the BPE; an id that holds bytes of
    both counts as data.
    """
    pairs: list[tuple[int, str]] = []
    for is_control, group in groupby(segments, key=lambda segment: segment.kind == "control"):
        run = list(group)
        ids = tokenizer.encode(run)
        if is_control:
            pairs += [(token_id, "control") for token_id in ids]
            continue
        pairs += zip(ids, _kinds(tokenizer, ids, run), strict=True)
    return pairs


def _kinds(tokenizer: Tokenizer, ids: Sequence[int], run: Sequence[Segment]) -> Iterator[str]:
    """The kind of each id of one run of text, by the bytes it stands for."""
    if all(segment.kind == run[0].kind for segment in run):
        yield from repeat(run[0].kind, len(ids))
        return
    ends = accumulate(len(_utf8(segment.text)) for segment in run)
    rest = [(end, segment.kind) for end, segment in zip(ends, run, strict=True)]
    at = start = 0
    for token_id in ids:
        end = start + len(tokenizer.piece(token_id))
        while rest[at][0] <= start and at + 1 < len(rest):
            at += 1
        last = at
        while rest[last][0] < end and last + 1 < len(rest):
            last += 1
        yield "data" if any(kind == "data" for _, kind in rest[at : last + 1]) else "template"
        start = end


def _utf8(text: str) -> bytes:
    # As the tokenizer does: pairs of surrogates are their character, lone ones are U+FFFD.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")
