"""What stands below the user's own words in a prompt: files named with `@`, and what commands that
they ran themselves (`!`) printed.

In: the words, the directory, results of commands. Out: one text, which is what the model reads and
what the session keeps; and back from such a text to the words, for a screen. Nothing is cut.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.agent.prompt_input import file_part

__all__ = [
    "Ran", "Typed", "mentioned", "quoted", "typed", "with_files", "with_names", "with_results",
]  # fmt: skip

# After a blank or at the start; a name with blanks stands in quotes.
_MENTION = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|(\S+))')
_TRAILING = ".,;:!?)]}'\""
_RAN = "The user ran a command"
_MATERIAL = re.compile(rf"\n\n(?:File (?P<file>[^\n]+):\n|{_RAN}: (?P<command>[^\n]*))")


@dataclass(frozen=True)
class Ran:
    """A command of the user's own; `result` as the tool `bash` words it."""

    command: str
    result: str


@dataclass(frozen=True)
class Typed:
    """The user's words, and what stands below them: `src/a.py`, `$ git status`."""

    text: str
    below: tuple[str, ...]


def mentioned(text: str, directory: Path) -> list[str]:
    """The files that `text` names with `@`, as they are named there, each once. What is no regular
    file is only a word (`@pytest.fixture`)."""
    found: list[str] = []
    for match in _MENTION.finditer(text):
        names = [match[1]] if match[1] else [match[2], match[2].rstrip(_TRAILING)]
        name = next((name for name in names if name and _is_file(directory, name)), None)
        if name is not None and name not in found:
            found.append(name)
    return found


def with_files(text: str, directory: Path) -> str:
    """The words with the files they mention. Raises UsageError for one that cannot be read."""
    parts = [text, *(file_part(name, directory) for name in mentioned(text, directory))]
    return "\n\n".join(parts)


def with_names(text: str, directory: Path) -> str:
    """The words with the bare names of the files they mention, for a model that was trained to read
    a file by its name."""
    names = mentioned(text, directory)

    def bare(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return match[0].replace("@", "", 1) if name.rstrip(_TRAILING) in names else match[0]

    return _MENTION.sub(bare, text)


def with_results(prompt: str, ran: Sequence[Ran]) -> str:
    """The prompt with what the user's own commands printed."""
    parts = [f"{_RAN}: {' '.join(each.command.split())}\n{each.result}" for each in ran]
    return "\n\n".join([prompt, *parts])


def typed(prompt: str) -> Typed:
    """The words of a prompt that those two made, or of any other: then all of it."""
    end, below = len(prompt), []
    for match in _MATERIAL.finditer(prompt):
        name, words = match["file"], prompt[: min(end, match.start())]
        if name is not None and f"@{name}" not in words and f"@{quoted(name)}" not in words:
            continue
        end = min(end, match.start())
        below.append(name if name is not None else f"$ {match['command']}")
    return Typed(prompt[:end], tuple(below))


def quoted(name: str) -> str:
    """A name as it is written behind `@`."""
    return f'"{name}"' if re.search(r"\s", name) else name


def _is_file(directory: Path, name: str) -> bool:
    try:
        return stat.S_ISREG((directory / Path(name).expanduser()).stat().st_mode)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~nobody
        return False
