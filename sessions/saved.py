"""A session as it was left: its token log, which is the truth, and its event log, read back.

In: a session's directory. Out: `SavedTokens`, the ids of every branch, and `SavedEvents`, what was
said, turn by turn. Reads only; a damaged line costs that line, and the branch lacking it says so.

tokens.jsonl, a record a line; a session begins in branch 0, which is empty:

    {"kind": k, "at": n, "ids": […]}    ids appended to the current branch, the first at position n;
                                        kind is control, template, data, sampled or forced
    {"branch": k, "from": b, "at": n, "why": w, "fingerprint": f}
                                        branch k is begun with the first n ids of branch b and is
                                        the current one; `why` is "rewind", "repair" (a part of a
                                        prompt that a killed process left behind is not in it),
                                        "compaction" or "text" (n is 0 in both: it goes on from a
                                        summary, or from the conversation as text); f is the model
                                        whose ids it holds
    {"switch": b}                       back in branch b

events.jsonl has the lines of `--output-format stream-json`, each with "time", and besides:

    {"type": "session", …}              the first line: session_id, cwd, model, fingerprint,
                                        version, forked_from where it is a fork
    {"type": "resumed", …}              taken up again: model, fingerprint, cwd, version
    {"type": "tools", "schemas": […]}   the tools the model knows from here on
    {"type": "prompt", "text", "branch", "at", "changes"}
                                        a turn begins, in front of the `at`-th id of `branch`;
                                        `changes` numbers the last turn of the undo journal
    {"type": "assistant", …, "at": n}   the step ended with n ids in the branch
    {"type": "user", …, "diff", "ran"}  what an edit changed, and whether the call ran
    {"type": "branch", "branch": k}     what follows is in branch k
    {"type": "task", "task", "line"}    what the sub-agent of that call did: a line as above
    {"type": "unread", "id", "name", "text"}   a call that could not be read, as it was answered
    {"type": "reminder", "text"}        what the model is told before the next prompt
    {"type": "error", "text"}  {"type": "undo", "files", "text"}  {"type": "title", "text"}
    {"type": "rewind", "turn", "prompt", "text"}   turn (from 1) and those after it are gone from
                                        the conversation; `text` is what became of the files

Which turns belong to the conversation follows from the branches alone: those in the current branch
and in what it was begun from, up to where it parts. A summary hides nothing: what it stands for is
still shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ds4_agent.sessions.lines import read_lines
from ds4_agent.sessions.log import EVENTS, TOKENS

__all__ = [
    "Branch",
    "Run",
    "SavedEvents",
    "SavedTokens",
    "SavedTurn",
    "ids_of",
    "read_events",
    "read_tokens",
]

FRESH = ("compaction", "text")  # why a branch begins with nothing of the one before it
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """Ids of one kind that stand together, the first at position `at` of the branch."""

    at: int
    kind: str
    ids: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.at + len(self.ids)


@dataclass(frozen=True)
class Branch:
    """One branch, with everything it began with. `fingerprint` "" is that of the session.

    `is_whole` is False where ids are missing in the middle: a line of the log is damaged.
    """

    number: int
    origin: int | None = None  # the branch it was begun from, at its position `at`
    at: int = 0
    why: str = ""
    fingerprint: str = ""
    runs: tuple[Run, ...] = ()
    is_whole: bool = True

    @property
    def end(self) -> int:
        """Its length, that of what is missing included."""
        return self.runs[-1].end if self.runs else 0

    def before(self, position: int) -> tuple[Run, ...]:
        """The runs of its first `position` ids."""
        kept = [run for run in self.runs if run.at < position]
        if kept and kept[-1].end > position:
            last = kept.pop()
            kept.append(Run(last.at, last.kind, last.ids[: position - last.at]))
        return tuple(kept)


@dataclass(frozen=True)
class SavedTokens:
    """Every branch by its number, and which of them goes on."""

    branches: Mapping[int, Branch]
    current: int
    damaged: int = 0

    @property
    def branch(self) -> Branch:
        return self.branches[self.current]

    def path(self, number: int | None = None) -> list[tuple[int, int | None]]:
        """The branches a conversation went through, oldest first, each with the position where it
        was left for the next; None where all of it belongs."""
        path: list[tuple[int, int | None]] = []
        cut: int | None = None
        at: int | None = self.current if number is None else number
        while at is not None and at in self.branches:
            branch = self.branches[at]
            path.append((at, cut))
            cut = None if branch.why in FRESH else branch.at
            at = branch.origin
        return path[::-1]


@dataclass(frozen=True)
class SavedTurn:
    """A prompt, and the lines of the event log up to the next one. It begins at `at` of `branch`;
    `changes` numbers the last turn in the undo journal before it."""

    prompt: str
    branch: int
    at: int
    changes: int
    lines: tuple[Record, ...] = ()


@dataclass(frozen=True)
class SavedEvents:
    """What was said. `turns` are all there ever were, of every branch, in the order of time;
    `newest` is the newest line of each type."""

    header: Record = field(default_factory=dict)
    turns: tuple[SavedTurn, ...] = ()
    other: tuple[Record, ...] = ()  # lines before the first prompt
    damaged: int = 0
    newest: Mapping[str, Record] = field(default_factory=dict)

    def on(self, path: Sequence[tuple[int, int | None]]) -> tuple[SavedTurn, ...]:
        """The turns of one conversation; `path` is `SavedTokens.path`."""
        cuts = dict(path)
        return tuple(
            turn
            for turn in self.turns
            if turn.branch in cuts and ((cut := cuts[turn.branch]) is None or turn.at < cut)
        )

    def backwards(self) -> Iterator[Record]:
        """Every line, the newest first."""
        for turn in reversed(self.turns):
            yield from reversed(turn.lines)
        yield from reversed(self.other)

    def last(self, kind: str) -> Record:
        """The newest line of a type; {} where there is none."""
        return self.newest.get(kind, {})


def read_tokens(directory: Path) -> SavedTokens:
    """The token log of a session; empty where there is none. Raises OSError."""
    lines = read_lines(directory / TOKENS)
    branches: dict[int, Branch] = {0: Branch(0)}
    runs: dict[int, list[Run]] = {0: []}
    broken: set[int] = set()
    current = damaged = end = 0  # `end` is that of the current branch
    for record in lines.records:
        try:
            if "ids" in record:
                run = Run(int(record["at"]), str(record["kind"]), tuple(map(int, record["ids"])))
                if run.at != end:
                    broken.add(current)
                runs[current].append(run)
                end = run.end
            elif "branch" in record:
                branch = _begun(record, runs)
                branches[branch.number] = branch
                runs[branch.number] = list(branch.runs)
                if branch.origin in broken and branch.at:
                    broken.add(branch.number)
                current, end = branch.number, branch.end
            elif "switch" in record:
                current = branches[int(record["switch"])].number
                end = runs[current][-1].end if runs[current] else 0
        except (KeyError, TypeError, ValueError):
            damaged += 1
    whole = {
        number: Branch(
            number, b.origin, b.at, b.why, b.fingerprint, tuple(runs[number]), number not in broken
        )
        for number, b in branches.items()
    }
    return SavedTokens(whole, current, lines.damaged + damaged)


def _begun(record: Record, runs: Mapping[int, Sequence[Run]]) -> Branch:
    """The branch that a record begins. Raises KeyError, TypeError and ValueError for no such."""
    number, origin, at = (int(record[key]) for key in ("branch", "from", "at"))
    if number in runs:
        raise ValueError(f"branch {number} is there already")
    start = Branch(origin, runs=tuple(runs[origin])).before(at)
    why, fingerprint = (str(record.get(key, "")) for key in ("why", "fingerprint"))
    return Branch(number, origin, at, why, fingerprint, start)


def read_events(directory: Path) -> SavedEvents:
    """The event log of a session; empty where there is none. Raises OSError."""
    lines = read_lines(directory / EVENTS)
    records = lines.records
    kinds = [str(record.get("type")) for record in records]
    newest = dict(zip(kinds, records, strict=True))
    header = records[kinds.index("session")] if "session" in newest else {}
    starts = [index for index, kind in enumerate(kinds) if kind == "prompt"]
    ends = [*starts[1:], len(records)]
    turns = tuple(
        _turn(records[start], records[start + 1 : end])
        for start, end in zip(starts, ends, strict=True)
    )
    other = records[: starts[0]] if starts else records
    return SavedEvents(header, turns, other, lines.damaged, newest)


def _turn(first: Record, lines: tuple[Record, ...]) -> SavedTurn:
    numbers = [first.get(key) for key in ("branch", "at", "changes")]
    branch, at, changes = [number if isinstance(number, int) else 0 for number in numbers]
    return SavedTurn(str(first.get("text", "")), branch, at, changes, lines)


def ids_of(runs: Sequence[Run]) -> list[int]:
    """The ids of runs, joined."""
    return [token_id for run in runs for token_id in run.ids]
