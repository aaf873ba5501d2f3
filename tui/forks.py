"""What is asked of forks of the conversation: a question in between, alternatives to choose from.

In: what stands behind `/btw` and `/try`, and which alternative was picked. Out: the next list, or
work for the agent's thread, or one line why there is none. Knows no screen.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import UsageError
from ds4_agent.tui.choosing import Rows, Work
from ds4_agent.tui.describe import plural

if TYPE_CHECKING:
    from ds4_agent.agent.alternatives import Alternative, Wanted
    from ds4_agent.agent.loop import Agent
    from ds4_agent.tui.conversation import Conversation

__all__ = ["KEPT", "Forks", "alternative_rows"]

KEPT = "kept"  # what the list of alternatives is about


class Forks:
    """The forks of one run, one `/try` at a time."""

    def __init__(self, conversation: "Conversation") -> None:
        self._talk = conversation
        self._wanted: Wanted | None = None
        self._found: list[Alternative] = []

    def aside(self, question: str) -> Work | str:
        """What `/btw` leads to."""
        if not question:
            return "write the question behind it: /btw QUESTION"
        return Work("answering", partial(self._talk.aside, question))

    def tried(self, arguments: str, agent: "Agent") -> Work | str:
        """What `/try` leads to."""
        from ds4_agent.agent.alternatives import parse_try
        from ds4_agent.agent.prompt.facts import test_command

        try:
            tests = test_command(Path(agent.identity.directory)) or ""
            self._wanted = parse_try(arguments, tests)
        except UsageError as error:
            return str(error)
        self._found = []
        return Work("trying", partial(self._talk.try_out, self._wanted, self._found.extend))

    def left_over(self) -> Rows | None:
        """What is to be chosen once the work is over; None for nothing."""
        if self._wanted is None or not any(each.patch for each in self._found):
            return None
        rows = alternative_rows(self._found, self._wanted.verify)
        return Rows(KEPT, "Which alternative is kept?", rows)

    def picked(self, index: int | None) -> Work | None:
        """Keep that one, and forget the others."""
        wanted, found = self._wanted, self._found
        self._wanted, self._found = None, []
        if index is None or wanted is None:
            return None
        return Work("applying", partial(self._talk.keep, wanted, found[index]))


def alternative_rows(found: "Sequence[Alternative]", verify: str) -> tuple[str, ...]:
    """An alternative a line: what it changed, what the check said, what it answered; of those that
    changed the same, that they did."""
    rows: list[str] = []
    first: dict[bytes, int] = {}  # which alternative made a patch first
    for number, each in enumerate(found, 1):
        like = first.setdefault(each.patch.data, number) if each.patch else number
        rows.append(f"{number}  {_row(each, verify, like if like < number else 0)}")
    return tuple(rows)


def _row(alternative: "Alternative", verify: str, like: int) -> str:
    answer = one_line(alternative.answer, 60)
    if alternative.patch is None:
        return answer
    added, removed = alternative.lines
    files = plural(len(alternative.patch.changes), "file")
    changes = f"{files} +{added} -{removed}" if alternative.patch.changes else "nothing changed"
    parts = [f"the same as {like}" if like and alternative.patch.changes else changes]
    if alternative.check:
        parts.append(f"{one_line(verify, 30)}: {one_line(alternative.check, 40)}")
    return " · ".join([*parts, answer])
