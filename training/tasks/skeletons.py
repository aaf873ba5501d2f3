"""The frames and synonyms of `phrases.toml`, as frozen values.

In: the file. Out: `FRAMES` by family, `SYNONYMS` by name, and the trimmings around a sentence.
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


_FILE = Path(__file__).with_name("phrases.toml")
_TEXT = _FILE.read_text(encoding="utf-8")
_TABLES = tomllib.loads(_TEXT)


def _phrases(table: dict[str, list[str]]) -> Phrases:
    return Phrases(tuple(table["train"]), tuple(table["held"]))


FRAMES = {name: _phrases(table) for name, table in _TABLES["frames"].items()}
SYNONYMS = {name: _phrases(table) for name, table in _TABLES["synonyms"].items()}
OPENERS, CALLS, CLOSERS, CONTEXTS, AFTERWORDS = (
    tuple(_TABLES["trimmings"][name])
    for name in ("openers", "calls", "closers", "contexts", "afterwords")
)
# Every word that requests are made of; a text to copy that is one of them needs quotes.
OWN_WORDS = frozenset(word.lower() for word in re.findall(r"[A-Za-z]+", _TEXT))
