"""Writes shards of training data: `python -m training.tasks.generate --help`.

In: a seed, how many episodes. Out: `train-NNN.npz` (or `held-NNN.npz` with --held) as the trainer
reads them. The same seed writes the same shard, but for times that test runners print and hashes
of commits; results of test runs and the like are kept in `kept.json` and used again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ds4_agent.engine.dsml.segments import data
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from training.tasks.commands import Pool
from training.tasks.copying import copy
from training.tasks.families import FAMILIES, TaskSource, shared_pool
from training.tasks.fronts import training_front
from training.tasks.play import Episode, Player, Turn
from training.tasks.render import CONTEXT, Renderer, Sequence16, facts_id, facts_of, foreign_text
from training.tasks.vocabulary import Words

ROOT = Path(__file__).parent.parent.parent
TOKENIZER = ROOT / "engine" / "nano" / "tokenizer.json"
LONGEST = 900  # ids of one episode; longer ones are left out
LONGEST_PREFIX = 600
PREFIX_SHARE = 0.04
PLAIN_PREFIXES = 0.6
FILLER_SHARE = 0.02
FRONTS = 4  # long texts a shard has; the trainer cuts what it needs out of them
FRONT_TOKENS = 25_600
TOLD_SESSIONS = 200
EPISODE, PREFIX, FILLER, FRONT = 0, 1, 2, 3
FAMILY_NAMES = (*FAMILIES, "copy", "prefix", "filler", "front")


@dataclass
class Shard:
    """The sequences of one file while they are collected."""

    sequences: list[Sequence16] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    facts: list[int] = field(default_factory=list)
    families: list[int] = field(default_factory=list)

    def add(self, sequence: Sequence16, kind: int, facts: int, family: str) -> None:
        self.sequences.append(sequence)
        self.kinds.append(kind)
        self.facts.append(facts)
        self.families.append(FAMILY_NAMES.index(family))

    def save(self, path: Path) -> None:
        """Write the file whole: a name without `.part` is complete."""
        part = path.with_suffix(".part")
        lengths = [len(sequence.ids) for sequence in self.sequences]
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                ids=np.array([i for s in self.sequences for i in s.ids], np.uint16),
                loss=np.array([c for s in self.sequences for c in s.loss], np.uint8),
                starts=np.cumsum([0, *lengths], dtype=np.int64),
                kind=np.array(self.kinds, np.uint8),
                facts=np.array(self.facts, np.int32),
                family=np.array(self.families, np.uint8),
                families=np.array(FAMILY_NAMES),
                tokenizer=np.array(hashlib.sha256(TOKENIZER.read_bytes()).hexdigest()),
            )
        os.replace(part, path)


def make_shard(
    player: Player,
    renderer: Renderer,
    pool: Pool,
    seed: int,
    episodes: int,
    *,
    held: bool,
    copies: float,
) -> Shard:
    """`episodes` episodes drawn from `seed`, with the prefixes and fillers they need."""
    rng = random.Random(f"shard {seed}")
    tasks = TaskSource(seed, pool, held=held)
    words = Words(rng, held=held)
    shard = Shard()
    commands: set[str] = {"python3 -m pytest -q", "unknown", "make test"}
    sessions: list[Episode] = []
    while len(shard.sequences) < episodes:
        if rng.random() < copies:
            shard_episode(shard, renderer, copy(words), EPISODE)
        elif rng.random() < FILLER_SHARE:
            shard_episode(shard, renderer, filler(words), FILLER)
        else:
            episode = player.play(tasks.task())
            if any(os.fspath(player.scratch) in turn.text for turn in episode.turns):
                continue  # an output that names the temporary directory
            shard_episode(shard, renderer, episode, EPISODE)
            commands |= {episode.tests} if episode.tests else set()
            sessions = [*sessions[1 - TOLD_SESSIONS :], episode]
    for _ in range(0 if held else FRONTS):
        add_front(shard, renderer, words, sessions)
    add_prefixes(shard, renderer, words, sorted(commands), int(episodes * PREFIX_SHARE))
    return shard


def shard_episode(shard: Shard, renderer: Renderer, episode: Episode, kind: int) -> None:
    """Add an episode unless it is too long."""
    sequence = renderer.episode(episode)
    if len(sequence.ids) <= LONGEST:
        if kind == FILLER:
            sequence.loss = [CONTEXT] * len(sequence.ids)
        shard.add(sequence, kind, facts_id(episode.tests), episode.family)


def add_prefixes(
    shard: Shard, renderer: Renderer, words: Words, commands: list[str], count: int
) -> None:
    """Half of them without a test command, as most directories are; the others with each of the
    commands in turn. Most are exactly the product's."""
    for number in range(max(count, 4 * len(commands))):
        command = "unknown" if number % 2 else commands[number // 2 % len(commands)]
        facts = facts_of(command)
        if words.rng.random() < PLAIN_PREFIXES:
            ids = renderer.prefix(facts)
        else:
            ids = renderer.varied_prefix(words, facts)
        if len(ids) <= LONGEST_PREFIX:
            sequence = Sequence16()
            sequence.add(ids, CONTEXT)
            shard.add(sequence, PREFIX, facts_id(command), "prefix")


def add_front(shard: Shard, renderer: Renderer, words: Words, sessions: list[Episode]) -> None:
    """A long text to stand before prompts, at least FRONT_TOKENS of it."""
    text = training_front(words, sessions, renderer.tokenizer, FRONT_TOKENS)
    sequence = Sequence16()
    sequence.add(renderer.tokenizer.encode([data(text + "\n\n")]), CONTEXT)
    shard.add(sequence, FRONT, -1, "front")


def filler(words: Words) -> Episode:
    """Something said that asks for nothing: a paste, and a short word back."""
    text = foreign_text(words, words.rng.randint(1, 12))
    turns = (Turn("user", text), Turn("answer", words.rng.choice(("Understood.", "Noted."))))
    return Episode("filler", turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "training" / "runs" / "data")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=10_000, help="episodes of each shard")
    parser.add_argument("--copies", type=float, default=0.05, help="share of pure copying")
    parser.add_argument(
        "--pool", type=int, default=200, help="repositories, jobs and half as many test projects"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held", action="store_true", help="held-out words and phrasings")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch()) as directory:
        kept = arguments.out / "kept.json"
        runs = json.loads(kept.read_text()) if kept.exists() else {}
        player = Player(Path(directory), kept=runs)
        pool = shared_pool(arguments.pool, held=arguments.held)
        renderer = Renderer(Tokenizer.from_file(TOKENIZER), player.tools)
        for number in range(arguments.first, arguments.first + arguments.shards):
            began = time.perf_counter()
            shard = make_shard(
                player,
                renderer,
                pool,
                arguments.seed * 1000 + number + (500 if arguments.held else 0),
                arguments.episodes,
                held=arguments.held,
                copies=0.0 if arguments.held else arguments.copies,
            )
            name = f"{'held' if arguments.held else 'train'}-{number:03}.npz"
            shard.save(arguments.out / name)
            kept.write_text(json.dumps(player.kept))
            tokens = sum(len(sequence.ids) for sequence in shard.sequences)
            seconds = time.perf_counter() - began
            print(
                f"{name}: {len(shard.kinds)} sequences, {tokens} tokens, {seconds:.0f} s",
                flush=True,
            )


def scratch() -> str | None:
    """A directory in memory where there is one: a shard makes and removes thousands of files."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()
