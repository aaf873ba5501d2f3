"""What the word at the cursor may become: a `/` command at the start, an `@` file anywhere.

In: the text before the cursor, the names there are. Out: a `Wish`, ranked names, the text to put in
its place. Files are those of the directory that no `.gitignore` leaves out. Knows no screen.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from ds4_agent.agent.material import quoted

__all__ = ["Files", "Wish", "commands_like", "fuzzy", "replacement", "wish_at"]

MOST_FILES = 30_000
FRESH_FOR = 5.0  # seconds
_COMMAND = re.compile(r"/([a-z0-9:_-]*)")
_FILE = re.compile(r'(?<!\S)@(?:"([^"\n]*)|([^\s"]*))$')


@dataclass(frozen=True)
class Wish:
    """`query` begins, with its sign, at character `start` of the text."""

    kind: Literal["command", "file"]
    start: int
    query: str


def wish_at(before: str) -> Wish | None:
    """What the text before the cursor asks to be completed."""
    command = _COMMAND.fullmatch(before)
    if command is not None:
        return Wish("command", 0, command[1])
    file = _FILE.search(before)
    if file is not None:
        return Wish("file", file.start(), file[1] if file[1] is not None else file[2])
    return None


def replacement(wish: Wish, name: str) -> str:
    """What stands in the place of the wish. A directory waits for what follows."""
    if wish.kind == "command":
        return f"/{name} "
    if name.endswith("/"):
        return f'@"{name}' if " " in name else f"@{name}"
    return f"@{quoted(name)} "


def fuzzy(query: str, names: Iterable[str], limit: int) -> list[str]:
    """The best of `names` that hold the letters of `query` in this order, best first: at the start
    of the last part of the name, then in it, then anywhere, then scattered; shorter before longer.
    Capitals count where the query has any."""
    fold = (lambda text: text) if query != query.lower() else str.lower
    needle = fold(query)
    if not needle:
        ranked = [((name.rstrip("/").count("/"),), name) for name in names]
        return [name for _, name in sorted(ranked)[:limit]]
    scattered = re.compile(".*?".join(map(re.escape, needle)), re.DOTALL)
    ranked_by: list[tuple[tuple[int, int, int], str]] = []
    for name in names:
        folded = fold(name)
        match = scattered.search(folded)
        if match is not None:
            ranked_by.append((_rank(needle, folded, match), name))
    return [name for _, name in sorted(ranked_by)[:limit]]


def commands_like(query: str, names: Sequence[str]) -> list[str]:
    """The commands that begin with `query`; where none does, those that hold its letters."""
    return [name for name in names if name.startswith(query)] or fuzzy(query, names, len(names))


def _rank(needle: str, name: str, match: re.Match[str]) -> tuple[int, int, int]:
    last = name.rstrip("/").rpartition("/")[2]
    if needle in name:
        at = last.find(needle)
        if at >= 0:
            return (0 if at == 0 else 1), at, len(name)
        return 2, name.find(needle), len(name)
    return 3, match.end() - match.start(), len(name)


class Files:
    """The files and directories of a working directory, looked up again after a while."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._names: Sequence[str] = ()
        self._at: float | None = None

    @property
    def known(self) -> Sequence[str]:
        """What the last look found, at once; empty before the first."""
        return self._names

    def look(self) -> Sequence[str]:
        """Relative names, a directory with `/` at its end. Takes as long as the walk."""
        from ds4_agent.tools.ignore import walk

        if self._at is None or self._clock() - self._at > FRESH_FOR:
            entries = islice(walk(self._directory), MOST_FILES)
            self._names = [
                entry.path + "/" if entry.is_directory else entry.path
                for entry in entries
                if (entry.is_directory or entry.is_file) and entry.path.isprintable()
            ]
            self._at = self._clock()
        return self._names
