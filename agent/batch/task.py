"""What a batch is to do with every item, as the command line says it, and what became of one.

In: nothing. Out: plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ds4_agent.agent.batch.items import Item
from ds4_agent.agent.events import Usage

__all__ = ["Outcome", "State", "Task", "outcome_of", "outcome_record"]

State = Literal["changed", "unchanged", "failed"]


@dataclass(frozen=True)
class Task:
    """`applies`: files are changed for good; else the changes are printed or go into a patch."""

    prompt: str
    scope: tuple[str, ...] = ()  # patterns of files that may be changed beside an item's own
    verify: str = ""
    verify_seconds: float = 300
    retries: int = 1
    commit: Literal["", "one", "each"] = ""
    applies: bool = True


@dataclass(frozen=True)
class Outcome:
    """The end of an item. `text`: the model's answer; `reason`: why it failed; `files`: as the
    ledger has them; `seconds`: from its start to its end."""

    item: Item
    state: State
    text: str = ""
    reason: str = ""
    tries: int = 0
    turns: int = 0
    usage: Usage = field(default_factory=Usage)
    files: tuple[Mapping[str, Any], ...] = ()
    diff_sha256: str = ""
    added: int = 0
    removed: int = 0
    seconds: float = 0.0
    commit: str = ""


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the ledger and the JSON formats have it."""
    return {
        "state": outcome.state,
        "path": outcome.item.path,
        "text": outcome.text,
        "reason": outcome.reason,
        "tries": outcome.tries,
        "turns": outcome.turns,
        "tokens": asdict(outcome.usage),
        "files": [dict(file) for file in outcome.files],
        "diff_sha256": outcome.diff_sha256,
        "added": outcome.added,
        "removed": outcome.removed,
        "seconds": round(outcome.seconds, 3),
        "commit": outcome.commit,
    }


def outcome_of(item: Item, record: Mapping[str, Any]) -> Outcome:
    """The outcome that a record stands for."""
    return Outcome(
        item,
        record["state"],
        record["text"],
        record["reason"],
        record["tries"],
        record["turns"],
        Usage(**record["tokens"]),
        tuple(record["files"]),
        record["diff_sha256"],
        record["added"],
        record["removed"],
        record["seconds"],
        record["commit"],
    )
