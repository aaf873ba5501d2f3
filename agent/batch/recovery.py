"""What a killed batch left in the files, before it goes on.

In: its ledger. Out: the files of items that are not at their end as they were, and a warning for
each that is neither what was found there nor what was written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ds4_agent.agent.batch.work import refusals
from ds4_agent.agent.printing import warn

if TYPE_CHECKING:
    from ds4_agent.agent.batch.items import Item
    from ds4_agent.agent.batch.ledger import Saved
    from ds4_agent.agent.batch.placing import Tree
    from ds4_agent.agent.batch.task import Task

__all__ = ["recover"]

NAMED = 6  # files in a warning


def recover(tree: Tree, saved: Saved, task: Task) -> None:
    """Take out what a killed batch left in place of items that are not at their end."""
    from ds4_agent.tools.types import ToolError

    begun = [(item, saved.entry(item.number)) for item in saved.items]
    left_over = [(item, e) for item, e in begun if (e.placed or e.since) and not e.is_ended]
    if not left_over:
        return
    with tree.lock.held(tree.stop):
        for item, entry in left_over:
            try:
                left = tree.recover(entry)
            except ToolError as error:
                left = [str(error)]
            for shown in left:
                warn(f"left alone, changed by someone else meanwhile: {shown}")
            if entry.since:
                _tell_of_command(tree, item, entry.since, task)


def _tell_of_command(tree: Tree, item: Item, since: float, task: Task) -> None:
    """A command was killed with the batch: what it did beyond its item's files cannot be told from
    what somebody did since."""
    refuses = refusals(task, item, tree.workspace.root)
    names = tree.bounds.changed_since(since, refuses)
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        warn(
            f"a command of {item.shown} was killed; what changed since it began is left as it is: "
            f"{', '.join(names[:NAMED])}{more}"
        )
