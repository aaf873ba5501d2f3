"""Long texts that stand before a prompt: what a handbook is to nano.

In: a random source, a tokenizer and a number of tokens. Out: text. Those of training are made of
Python's own reference (it comes with Python), of made-up files and of played sessions; those of the
evaluation of this repository's handbook and documents, which training never reads.
"""

from __future__ import annotations

import functools
import random
from pathlib import Path
from pydoc_data.topics import topics

from ds4_agent.engine.dsml.segments import data
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from training.tasks.play import Episode
from training.tasks.render import foreign_text
from training.tasks.vocabulary import Words

ROOT = Path(__file__).parent.parent.parent
PIECE = 1500  # characters of reference in a row
PROSE, FILES = 0.6, 0.3  # shares of a training front; the rest are sessions


def training_front(words: Words, sessions: list[Episode], tokenizer: Tokenizer, size: int) -> str:
    """Text of about `size` tokens (a little more): prose, made-up files, sessions told as text."""
    parts: list[str] = []
    count = 0
    while count < size:
        part = piece(words, sessions)
        parts.append(part)
        count += len(tokenizer.encode([data(part)])) + 1
    return "\n\n".join(parts)


def piece(words: Words, sessions: list[Episode]) -> str:
    pick = words.rng.random()
    if pick < PROSE or not sessions:
        text = words.rng.choice(reference())
        start = words.rng.randrange(max(1, len(text) - PIECE))
        return text[start : start + PIECE]
    if pick < PROSE + FILES:
        return foreign_text(words, words.rng.randint(5, 30))
    return told(words.rng.choice(sessions))


def told(episode: Episode) -> str:
    """A session as a handbook tells it: as text, the marks of turns and calls included."""
    lines = []
    for turn in episode.turns:
        if turn.call is not None:
            arguments = ", ".join(f"{k}={v!r}" for k, v in turn.call.arguments.items())
            lines.append(f"{turn.call.name}({arguments})")
        elif turn.kind == "user":
            lines.append(f"<｜User｜>{turn.text}<｜Assistant｜>")
        elif turn.kind == "result":
            lines.append(f"<tool_result>{turn.text}</tool_result>")
        else:
            lines.append(f"{turn.text}<｜end▁of▁sentence｜>")
    return "\n".join(lines)


@functools.cache
def reference() -> tuple[str, ...]:
    """Python's reference by topic: prose with code in it, of the kind a handbook is."""
    return tuple(text for _, text in sorted(topics.items()) if len(text) > 400)


def held_front(tokenizer: Tokenizer, size: int, number: int) -> str:
    """The `number`-th front of the evaluation, of `size` tokens at most and only a few less."""
    documents = list(own_documents())
    random.Random(number).shuffle(documents)
    text = "\n\n".join(documents)
    while len(tokenizer.encode([data(text)])) < size:
        text += "\n\n" + text
    low, high = 0, len(text)
    while high - low > 8:  # the longest beginning that fits
        middle = (low + high) // 2
        fits = len(tokenizer.encode([data(text[:middle])])) <= size
        low, high = (middle, high) if fits else (low, middle)
    return text[:low]


@functools.cache
def own_documents() -> tuple[str, ...]:
    """The handbook's chapters and the documents of this repository."""
    handbook = sorted((ROOT / "agent" / "prompt").rglob("*.md"))
    others = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md")]
    sources = sorted((ROOT / "agent").glob("*.py"))[:6]
    return tuple(path.read_text(encoding="utf-8") for path in [*handbook, *others, *sources])
