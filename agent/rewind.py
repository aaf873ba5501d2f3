"""The places a session can go back to: the start of each of its turns, and what was summarised.

In: the transcript's place and what it owes, whenever a turn begins or a conversation is left for
its summary. Out: those again. A place of this process keeps its state, so that going back computes
nothing; one of an earlier process is looked up in the session's logs when it is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds4_agent.agent.errors import UsageError

if TYPE_CHECKING:
    from ds4_agent.agent.steps import Tail
    from ds4_agent.agent.transcript import Place
    from ds4_agent.agent.undo import TurnUndone

__all__ = ["Mark", "Past", "Return", "Rewound"]


@dataclass(frozen=True)
class Return:
    """A place, what it owes before anybody else can speak, and the summary that the next prompt
    begins with, if one waits for it."""

    place: Place
    tail: Tail
    opening: str = ""


@dataclass(frozen=True)
class Mark:
    """Where a turn begins. `changes` numbers the last turn of the undo journal before it; `depth`
    is how many summaries the conversation stood on."""

    prompt: str
    changes: int
    depth: int
    back: Callable[[], Return]


@dataclass(frozen=True)
class Rewound:
    """What going back did: the prompt that is no longer there, and what became of the files (None:
    they were left as they are)."""

    prompt: str
    undone: TurnUndone | None


class Past:
    """The turns of the conversation as it stands, and the conversations that were summarised."""

    def __init__(
        self, marks: Sequence[Mark] = (), summarised: Sequence[Callable[[], Return]] = ()
    ) -> None:
        self.marks = list(marks)
        self._summarised = list(summarised)
        self._announced: list[tuple[int, str]] = []  # after how many turns began, and what

    def begin_turn(self, prompt: str, back: Return, changes: int) -> None:
        self.marks.append(Mark(prompt, changes, len(self._summarised), lambda: back))

    def announced(self, text: str) -> None:
        """The model was told in the turn under way that its tools changed."""
        self._announced.append((len(self.marks), text))

    def summarise(self, back: Return) -> None:
        """The conversation is left for its summary."""
        self._summarised.append(lambda: back)

    def uncompact(self) -> Return | None:
        """The conversation before the last summary; None where there is none."""
        if not self._summarised:
            return None
        back = self._summarised[-1]()
        self._summarised.pop()
        self.marks = [mark for mark in self.marks if mark.depth <= len(self._summarised)]
        return back

    def rewind(self, turn: int) -> tuple[Mark, Return, list[str]]:
        """Forget the `turn`-th turn (from 1) and those after it, and what was announced in them,
        which is returned. Raises UsageError."""
        if not 1 <= turn <= len(self.marks):
            known = f"1 to {len(self.marks)}" if self.marks else "none"
            raise UsageError(f"there is no turn {turn} to go back to; the turns are {known}")
        mark = self.marks[turn - 1]
        back = mark.back()
        del self.marks[turn - 1 :]
        del self._summarised[mark.depth :]
        unread = [text for told_in, text in self._announced if told_in >= turn]
        self._announced = [told for told in self._announced if told[0] < turn]
        return mark, back, unread
