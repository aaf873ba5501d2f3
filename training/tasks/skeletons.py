"""The frames and synonyms of the `phrases*.toml`, as frozen values.

In: the files. Out: `FRAMES` by family, `SYNONYMS` by name, and the trimmings around a sentence.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Phrases:
    """Ways to say one thing. What is held is for evaluation only."""

    train: tuple[str, ...]
    held: tuple[str, ...] = ()


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


_TEXT, _MORE = _text("phrases.toml"), _text("phrases_more.toml")
_TABLES = tomllib.loads(_TEXT)
# Frames of training and of evaluation apart, so that each can be written unseen by the other.
_TRAIN, _HELD = tomllib.loads(_MORE)["frames"], tomllib.loads(_text("phrases_held.toml"))["frames"]


def _phrases(table: dict[str, list[str]]) -> Phrases:
    return Phrases(tuple(table["train"]), tuple(table["held"]))


FRAMES = {name: _phrases(table) for name, table in _TABLES["frames"].items()}
FRAMES |= {name: _phrases(_TRAIN[name] | _HELD[name]) for name in _TRAIN}
SYNONYMS = {name: _phrases(table) for name, table in _TABLES["synonyms"].items()}
OPENERS, CALLS, CLOSERS, CONTEXTS, AFTERWORDS, ASIDES = (
    tuple(_TABLES["trimmings"][name])
    for name in ("openers", "calls", "closers", "contexts", "afterwords", "asides")
)
# Every word that requests are made of; a text to copy that is one of them needs quotes.
OWN_WORDS = frozenset(word.lower() for word in re.findall(r"[A-Za-z]+", _TEXT + _MORE))
