"""What stands above the first passage that is laid out.

In: the story of a session that goes on, and passages the screen has let go of. Out: the nearest of
them again. The turns of a long session are read when somebody comes near them. No widget.
"""

from collections.abc import Iterator

from ds4_agent.agent.events import RunStarted
from ds4_agent.agent.replay import Story
from ds4_agent.tui.passages import Passage, passage_text, passages_of, prompt_of

__all__ = ["Earlier"]

TURNS = 64  # read at a time


class Earlier:
    """The first turns of a story, not read yet, and behind them passages, oldest first."""

    def __init__(self, story: Story | None = None, unread: int = 0) -> None:
        self._story = story or Story()
        self._unread = unread
        self._passages: list[Passage] = []

    def __bool__(self) -> bool:
        return bool(self._passages or self._unread)

    @property
    def turns(self) -> int:
        """How many turns begin in it."""
        return self._unread + sum(
            isinstance(event, RunStarted) for passage in self._passages for event in passage
        )

    def append(self, passage: Passage) -> None:
        """The next one, below all others."""
        self._passages.append(passage)

    def take(self, count: int) -> list[Passage]:
        """The last `count` passages, or all there are; they are no longer here."""
        while len(self._passages) < count and self._read():
            pass
        first = max(len(self._passages) - count, 0)
        taken = self._passages[first:]
        del self._passages[first:]
        return taken

    def distance(self, wanted: str) -> int:
        """How many passages from the end these words (in lower case) are; 0 where they are not."""
        for index, passage in enumerate(self._backwards(), start=1):
            if wanted in passage_text(passage).casefold():
                return index
        return 0

    def cut(self, prompt: str) -> bool:
        """Take away the last passage with this prompt and all behind it; False without one."""
        for index, passage in enumerate(self._backwards(), start=1):
            if is_prompt(passage, prompt):
                del self._passages[-index:]
                return True
        return False

    def _backwards(self) -> Iterator[Passage]:
        """All passages, the last one first."""
        done = 0
        while done < len(self._passages) or self._read():
            done += 1
            yield self._passages[-done]

    def _read(self) -> bool:
        """Read more of the story; False where nothing is left."""
        if not self._unread:
            return False
        first = max(self._unread - TURNS, 0)
        self._passages[:0] = passages_of(self._story.events(first, self._unread))
        self._unread = first
        return True


def is_prompt(passage: Passage, prompt: str) -> bool:
    """Whether the user said just this in it."""
    return any(prompt_of(event) == prompt for event in passage)
