"""Shards of pre-tokenised sequences and the rows packed from them.

In: `train-*.npz` / `held-*.npz` files of training/tasks (keys: ids, loss, starts, kind, facts,
family, families, tokenizer). Out: one `Rows` per step: ids, targets and loss codes on the flat
token axis of training.model. All choices come from the numpy generator that is passed in.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.model import Shape
from training.tokenizer import BOS, CONTROL_TOKENS, EOS, INSTALLED, VOCABULARY, control_id

# Loss codes of a token.
CONTEXT, CHOSEN, FORCED = 0, 1, 2
# Kinds of a sequence.
EPISODE, PREFIX, FILLER, FRONT = 0, 1, 2, 3
ANY_FACTS = -1

# Part of the batches whose prompt lost its beginning: no position may be special.
CUT_PREFIX = 0.15
# Part of the rows with other text between the prompt and the first request.
TEXT_BEFORE_REQUEST = 0.15
# Part of the rows whose first request is one that the prompt decides: run the tests, by its command
# or by none. Elsewhere in a row the prompt is too far off to learn that this line counts.
BOUND_FIRST = 0.2
# Part of the fronts that are a prompt and a long conversation; the others stand before a prompt.
CONVERSATIONS = 0.3
# Part of the pure copies that repeat all they were given; the simplest lesson comes first.
WHOLE_COPIES = 0.7

Ids = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int64]


class ShardError(Exception):
    """A shard that cannot be used: damaged, or tokenised with another tokenizer."""


@dataclass(frozen=True)
class Sequence:
    """One prefix, episode, filler or front; `loss` holds a loss code per id."""

    ids: Ids
    loss: Codes
    kind: int
    facts: int
    family: str


@dataclass(frozen=True)
class Span:
    """Where an episode stands on the flat token axis: target positions begin up to end."""

    family: str
    begin: int
    end: int


@dataclass(frozen=True)
class Rows:
    """ids, targets, loss [tokens]; loss[i] is the code of targets[i], which follows ids[i]."""

    ids: Ids
    targets: Ids
    loss: Codes
    episodes: tuple[Span, ...] = ()


@dataclass
class Corpus:
    """The sequences of all shards read so far, sorted by what a row asks for."""

    prefixes: list[Sequence] = field(default_factory=list)
    free: list[Sequence] = field(default_factory=list)
    bound: dict[int, list[Sequence]] = field(default_factory=lambda: defaultdict(list))
    fillers: list[Sequence] = field(default_factory=list)
    fronts: list[Sequence] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    # Prefixes by so many of their first ids: thousands are too many to compare in each step.
    alike: dict[int, dict[bytes, list[Sequence]]] = field(default_factory=dict)

    def refresh(self, folder: Path, pattern: str) -> int:
        """Read shards that are new in `folder`; how many there were."""
        new = [path for path in sorted(folder.glob(pattern)) if path.name not in self.files]
        for path in new:
            self.files.add(path.name)
            for sequence in read_shard(path):
                self.add(sequence)
        return len(new)

    def add(self, sequence: Sequence) -> None:
        if sequence.kind == PREFIX:
            self.prefixes.append(sequence)
            self.alike.clear()
        elif sequence.kind == FRONT:
            self.fronts.append(sequence)
        elif sequence.facts != ANY_FACTS:
            self.bound[sequence.facts].append(sequence)
        else:
            self.free.append(sequence)
            if sequence.kind == FILLER:
                self.fillers.append(sequence)

    def beginning_as(self, prefix: Sequence, size: int) -> list[Sequence]:
        """The prefixes whose first `size` ids are those of `prefix`."""
        if size not in self.alike:
            self.alike[size] = defaultdict(list)
            for each in self.prefixes:
                self.alike[size][each.ids[:size].tobytes()].append(each)
        return self.alike[size][prefix.ids[:size].tobytes()]

    @property
    def is_ready(self) -> bool:
        return bool(self.prefixes and self.free)

    def bound_share(self) -> float:
        """The part of all episodes that need a certain facts line before them."""
        bound = sum(len(group) for group in self.bound.values())
        return bound / max(1, bound + len(self.free))


def read_shard(path: Path) -> list[Sequence]:
    """The sequences of one file; ShardError when it was made with another tokenizer."""
    try:
        with np.load(path) as file:
            data = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise ShardError(f"{path} is no shard: {error}") from error
    if str(data["tokenizer"]) != tokenizer_hash():
        raise ShardError(f"{path} was made with another tokenizer; generate it again")
    ids, loss = data["ids"].astype(np.int64), data["loss"].astype(np.int64)
    starts = data["starts"]
    return [
        Sequence(
            ids[starts[i] : starts[i + 1]],
            loss[starts[i] : starts[i + 1]],
            int(data["kind"][i]),
            int(data["facts"][i]),
            str(data["families"][data["family"][i]]),
        )
        for i in range(len(starts) - 1)
    ]


def tokenizer_hash() -> str:
    return hashlib.sha256(INSTALLED.read_bytes()).hexdigest()


class Row:
    """One growing row of `length` + 1 ids: the last id is only a target."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.size = 0
        self.ids: list[Ids] = []
        self.loss: list[Codes] = []
        self.episodes: list[tuple[str, int, int]] = []

    @property
    def is_full(self) -> bool:
        return self.size > self.length

    def put(self, ids: Ids, loss: Codes, family: str | None = None) -> None:
        room = self.length + 1 - self.size
        if family is not None and len(ids) <= room:
            self.episodes.append((family, self.size, self.size + len(ids)))
        self.ids.append(ids[:room])
        self.loss.append(loss[:room])
        self.size += len(self.ids[-1])


def pack(prefix: Ids, rows: list[Row], shape: Shape) -> Rows:
    """The flat axis of a shared prefix and finished rows."""
    ids, targets, loss, spans = [prefix], [np.zeros_like(prefix)], [np.zeros_like(prefix)], []
    for number, row in enumerate(rows):
        whole, codes = np.concatenate(row.ids), np.concatenate(row.loss)
        ids.append(whole[:-1])
        targets.append(whole[1:])
        loss.append(codes[1:])
        origin = shape.prefix + number * shape.length - 1  # a target stands one before its id
        spans += [
            Span(family, max(0, begin + origin), end + origin)
            for family, begin, end in row.episodes
        ]
    return Rows(np.concatenate(ids), np.concatenate(targets), np.concatenate(loss), tuple(spans))


def next_rows(
    corpus: Corpus,
    shape: Shape,
    random: np.random.Generator,
    copying: float,
    before: Before | None = None,
) -> Rows:
    """The rows of one step; `copying` is the part of rows that only copy."""
    if corpus.is_ready:
        return task_rows(corpus, shape, random, copying, before)
    prefix = np.array([control_id(BOS), *noise(random, shape.prefix - 1)])
    return pack(prefix, [copying_row(shape, random) for _ in range(shape.rows)], shape)


@dataclass(frozen=True)
class Before:
    """What stands before the rows of a batch. `facts` None: a text that a prompt follows; else a
    prompt with these facts and a conversation that the rows go on with."""

    ids: Ids
    facts: int | None


def front_text(corpus: Corpus, tokens: int, random: np.random.Generator) -> Before:
    """`tokens` ids to put before rows: the end of a long text, or a long conversation."""
    if random.random() < CONVERSATIONS or not corpus.fronts:
        prompt = corpus.prefixes[random.integers(len(corpus.prefixes))]
        parts = [prompt.ids]
        while sum(map(len, parts)) < tokens:
            parts.append(choose(corpus, prompt.facts, random).ids)
        return Before(np.concatenate(parts)[:tokens], prompt.facts)
    text = corpus.fronts[random.integers(len(corpus.fronts))].ids
    parts = [np.array([control_id(BOS)]), text[-(tokens - 1) :]]
    if len(text) < tokens - 1:
        raise ShardError(f"a front of {len(text)} tokens is too short for {tokens}")
    return Before(np.concatenate(parts), None)


def task_rows(
    corpus: Corpus,
    shape: Shape,
    random: np.random.Generator,
    copying: float = 0.0,
    before: Before | None = None,
) -> Rows:
    """One prompt for the batch, then per row the rest of it and as many episodes as fit. With
    `before`, the rows are those that stand behind it, without a beginning of their own."""
    rows = []
    heads = prompts(corpus, shape, random, before)
    # A short prompt is filled up with other conversation, the same for all rows.
    common, facts = heads[0][0][: shape.prefix], ANY_FACTS
    if before is not None and before.facts is not None:
        facts = before.facts
    while len(common) < shape.prefix:
        common = np.concatenate([common, choose(corpus, facts, random).ids])
    for head, facts in heads:
        if random.random() < copying:
            rows.append(copying_row(shape, random))
            continue
        row = Row(shape.length)
        rest = head[shape.prefix :] if len(head) > shape.prefix else common[shape.prefix :]
        row.put(rest, np.zeros_like(rest))
        if corpus.fillers and random.random() < TEXT_BEFORE_REQUEST:
            filler = corpus.fillers[random.integers(len(corpus.fillers))]
            row.put(filler.ids, np.zeros_like(filler.loss))
        if corpus.bound.get(facts) and len(head) and random.random() < BOUND_FIRST:
            group = corpus.bound[facts]
            episode = group[random.integers(len(group))]
            row.put(episode.ids, episode.loss, episode.family)
        while not row.is_full:
            episode = choose(corpus, facts, random)
            row.put(episode.ids, episode.loss, episode.family)
        rows.append(row)
    return pack(common[: shape.prefix], rows, shape)


def prompts(
    corpus: Corpus, shape: Shape, random: np.random.Generator, before: Before | None
) -> list[tuple[Ids, int]]:
    """For each row its prompt, all with the same beginning, and its facts."""
    if before is not None and before.facts is not None:
        return [(np.zeros(0, np.int64), before.facts)] * shape.rows
    skip = 0 if before is None else 1  # the beginning of the sentence stands before the front
    first = corpus.prefixes[random.integers(len(corpus.prefixes))]
    group = [first]
    start = 0
    if random.random() < CUT_PREFIX:
        start = int(random.integers(1, max(2, len(first.ids) - 40)))
    elif len(first.ids) > shape.prefix + skip:
        group = corpus.beginning_as(first, shape.prefix + skip)
    found = []
    for _ in range(shape.rows):
        prompt = group[random.integers(len(group))]
        found.append((np.concatenate([prompt.ids[skip:1], prompt.ids[1 + start :]]), prompt.facts))
    return found


def choose(corpus: Corpus, facts: int, random: np.random.Generator) -> Sequence:
    """An episode that may stand behind a prompt with these facts."""
    group = corpus.bound.get(facts)
    if not group or random.random() >= corpus.bound_share():
        group = corpus.free
    return group[random.integers(len(group))]


def copying_row(shape: Shape, random: np.random.Generator) -> Row:
    """A row that teaches nothing but copying: random ids, whole or found by the first of them."""
    user, assistant = control_id("<｜User｜>"), control_id("<｜Assistant｜>")
    closed, end = control_id("</think>"), control_id(EOS)
    row = Row(shape.length)
    while not row.is_full:
        if random.random() < WHOLE_COPIES:
            context = answer = noise(random, int(random.integers(3, 25)))
            given = 0
        else:
            parts = [noise(random, int(random.integers(2, 15))) for _ in range(3)]
            context = [token for part in parts for token in part]
            answer = parts[random.integers(len(parts))]
            given = 1  # the first id says which part is wanted
        ids = [user, *context, assistant, closed, *answer, end]
        asked = len(answer) + 1 - given
        loss = [CONTEXT] * (len(ids) - asked) + [CHOSEN] * asked
        row.put(np.array(ids), np.array(loss))
    return row


def noise(random: np.random.Generator, size: int) -> list[int]:
    """Random ids without control tokens; early ones (bytes, short words) more often, as in text."""
    low = len(CONTROL_TOKENS)
    ids = low + (VOCABULARY - low) * random.random(size) ** 2
    return ids.astype(np.int64).tolist()  # type: ignore[no-any-return]
