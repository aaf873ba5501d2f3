"""Sessions as the tree their copies make: a copy stands below the session it was forked from.

In: summaries, newest first. Out: the same summaries in the order of the tree, each with the lines
that lead to it. The newest branch of a tree says where the tree stands among the others.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.sessions.summary import Summary

__all__ = ["as_tree"]

DEEPEST = 6  # lines drawn before a branch: a copy of a copy of a copy has no room for its title


def as_tree(sessions: "Sequence[Summary]") -> "list[tuple[str, Summary]]":
    """Each session with what is drawn before it: "" for a root, `├ ` or `└ ` for a branch."""
    known = {summary.id for summary in sessions}
    below: dict[str, list[Summary]] = {}
    for summary in sessions:
        parent = summary.forked_from if summary.forked_from in known else ""
        below.setdefault("" if parent == summary.id else parent, []).append(summary)
    drawn: list[tuple[str, Summary]] = []
    waiting = [("", "", summary) for summary in reversed(below.get("", ()))]
    while waiting:
        lead, mark, summary = waiting.pop()
        drawn.append((lead + mark, summary))
        branches = below.pop(summary.id, [])
        inner = lead + {"": "", "├ ": "│ ", "└ ": "  "}[mark]
        if len(inner) >= 2 * DEEPEST:
            inner = lead
        for index, branch in enumerate(reversed(branches)):
            waiting.append((inner, "├ " if index else "└ ", branch))
    seen = {summary.id for _, summary in drawn}
    # Two that name each other as their origin belong to no root.
    return [*drawn, *(("", summary) for summary in sessions if summary.id not in seen)]
