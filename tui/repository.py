"""What a repository brings that could run, for the question whether it may.

In: a working directory, the user's places. Out: names; nothing is opened.
"""

from dataclasses import dataclass
from pathlib import Path

from ds4_agent.agent.display import one_line
from ds4_agent.agent.places import Places
from ds4_agent.agent.trust import TrustError, is_trusted, repository_of

__all__ = ["Brought", "brought", "trust_rows"]

PARTS = (".ds4/tools", ".ds4/commands", ".ds4/hooks.toml", ".ds4/config.toml", ".mcp.json")
LISTED = 20  # names


@dataclass(frozen=True)
class Brought:
    """`names` are relative to the repository."""

    repository: Path
    names: tuple[str, ...]
    is_trusted: bool

    @property
    def has_tools(self) -> bool:
        return any(name.startswith(".ds4/tools/") for name in self.names)

    def text(self) -> str:
        """What is there, a line each, displayable."""
        if not self.names:
            return f"{self.repository} brings nothing that could run."
        more = len(self.names) - LISTED
        rows = [one_line(name) for name in self.names[:LISTED]]
        rows += [f"and {more:,} more"] if more > 0 else []
        return "\n  ".join([f"{self.repository} brings:", *rows])


def brought(directory: Path, places: Places) -> Brought:
    """What the repository of `directory` brings."""
    repository = repository_of(directory)
    names: list[str] = []
    for part in PARTS:
        place = repository / part
        if place.is_dir():
            below = sorted(p for p in place.rglob("*") if not p.is_dir())
            names += [path.relative_to(repository).as_posix() for path in below]
        elif place.exists():
            names.append(part)
    try:
        trusted = is_trusted(repository, places.trusted_file)
    except TrustError:
        trusted = False
    return Brought(repository, tuple(names), trusted)


def trust_rows(found: Brought) -> tuple[str, ...]:
    """No first: what is picked without looking changes nothing."""
    return "No", "Yes, now and in every session to come"
