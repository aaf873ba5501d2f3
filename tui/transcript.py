"""The transcript: one column of messages that stays at its end until the reader scrolls up.

In: prompts, notices and the agent's events, in order. Only the last part of a long session is laid
out: what is above it is kept as events and shown again when the reader comes near. A block can be
under a cursor, opened, read out for a copy and found by its words. It never talks to the agent.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from textual.containers import VerticalScroll
from textual.widget import Widget

from ds4_agent.agent.events import Event, Notice, RunStarted
from ds4_agent.agent.replay import Story
from ds4_agent.tui.blocks import block_text, row_of
from ds4_agent.tui.earlier import Earlier, is_prompt
from ds4_agent.tui.messages import Banner, EarlierMessage, ThinkingMessage
from ds4_agent.tui.passages import Passage, passages_of, prompt_of, recorded
from ds4_agent.tui.telling import Telling
from ds4_agent.tui.tool import ToolMessage

__all__ = ["Transcript"]

MOST, FEWER = 240, 160  # blocks laid out: above the one, the oldest go until the other
AT_FIRST, MORE = 12, 24  # passages of a session that goes on; shown when the reader comes near
NEAR = 3  # rows from the top at which more is shown


@dataclass
class _Shown:
    """A passage on the screen: what it tells and the blocks that tell it."""

    events: Passage = field(default_factory=list)
    blocks: list[Widget] = field(default_factory=list)


class Transcript(VerticalScroll, can_focus=False):
    """All messages of the session."""

    DEFAULT_CSS = """
    Transcript {
        height: 1fr; layout: stream; scrollbar-size-vertical: 1; padding: 0 0 1 0;
        & > .at { background: $panel; outline-left: outer $accent; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._earlier = Earlier()
        self._shown: list[_Shown] = [_Shown()]
        self._newest = Telling(self._add)
        self._at: Widget | None = None
        self._is_filling = False

    def on_mount(self) -> None:
        self.anchor()

    # What is told

    async def ask(self, prompt: str) -> None:
        """A prompt of the user, and back to the end of the transcript."""
        await self._tell(RunStarted("", prompt, "", "", ()))
        self.anchor()

    async def notice(self, text: str, level: str = "info") -> None:
        """A remark of the program."""
        self._record(Notice(text))
        await self._newest.notice(text, level)

    async def fail(self, text: str) -> None:
        """The turn broke off with an error; what was growing ends where it is."""
        self._record(Notice(text))
        await self._newest.fail(text)

    async def show(self, event: Event) -> None:
        """What an event adds or changes. A prompt comes by `ask`, before its run begins."""
        if prompt_of(event) is None:
            await self._tell(event)

    async def _tell(self, event: Event) -> None:
        self._record(event)
        await self._newest.tell(event)
        await self._leave_out_old()

    async def replay(self, story: Story, now: Sequence[Event] = ()) -> None:
        """What an earlier process showed: its last part now, the rest when it is wanted; and below
        it what is told `now`."""
        unread = max(len(story) - AT_FIRST, 0)
        self._earlier = Earlier(story, unread)
        passages = list(passages_of(chain(story.events(unread), now)))
        for passage in passages[:-AT_FIRST]:
            self._earlier.append(passage)
        with self.app.batch_update():  # one layout and one paint of all of it
            for passage in passages[-AT_FIRST:]:
                self._begin()
                for event in passage:
                    self._shown[-1].events.append(event)
                    await self._newest.tell(event)
            self.anchor()
            await self._count_earlier()

    async def go_back(self, prompt: str) -> None:
        """Take away the last turn with this prompt and everything below it."""
        shown = [i for i, s in enumerate(self._shown) if is_prompt(s.events, prompt)]
        if not shown and not self._earlier.cut(prompt):
            return
        place = shown[-1] if shown else 0
        await self.remove_children([b for gone in self._shown[place:] for b in gone.blocks])
        del self._shown[place:]
        self._begin()
        if len(self._shown) < AT_FIRST:
            await self.show_earlier()
        await self._count_earlier()

    async def clear(self) -> None:
        """Only the banner stays."""
        self._earlier = Earlier()
        self._shown = [_Shown()]
        await self.remove_children([w for w in self.children if not isinstance(w, Banner)])

    def toggle_all(self) -> None:
        """Open every thought and call, or fold them again."""
        self._newest.is_open = not self._newest.is_open
        for widget in self.query("ThinkingMessage, ToolMessage"):
            if isinstance(widget, ThinkingMessage | ToolMessage):
                widget.toggle(self._newest.is_open)

    # What is laid out

    async def show_earlier(self, passages: int = MORE) -> bool:
        """Lay out the passages above the first one; the reader stays where they are. False where
        there are none."""
        if not self._earlier:
            return False
        self._is_filling = True
        taken = self._earlier.take(passages)
        first = next(iter(self.blocks), None)
        height = self.virtual_size.height
        above: list[_Shown] = []
        telling = Telling(self._adder(above, first), is_open=self._newest.is_open)
        with self.app.batch_update():
            for passage in taken:
                above.append(_Shown(passage))
                for event in passage:
                    await telling.tell(event)
            self._shown[:0] = above
            await self._count_earlier()
        self.call_after_refresh(self._stay, height)
        return True

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and new_value <= NEAR and self._earlier and not self._is_filling:
            self._is_filling = True
            self.call_later(self.show_earlier)

    def _stay(self, height: int) -> None:
        grown = self.virtual_size.height - height
        if grown > 0 and not self._follows:
            self.scroll_to(y=self.scroll_y + grown, animate=False, force=True)
        self._is_filling = False

    async def _leave_out_old(self) -> None:
        """Too much is laid out: the oldest goes, while the reader is at the end."""
        if not self._follows or sum(len(shown.blocks) for shown in self._shown) <= MOST:
            return
        gone: list[Widget] = []
        while len(self._shown) > 1 and sum(len(s.blocks) for s in self._shown) > FEWER:
            shown = self._shown.pop(0)
            gone += shown.blocks
            self._earlier.append(shown.events)
        await self.remove_children(gone)
        await self._count_earlier()

    @property
    def _follows(self) -> bool:
        """Whether the reader is at the end and stays there."""
        return self.is_anchored and not self._anchor_released and self._at is None

    async def _count_earlier(self) -> None:
        count = self._earlier.turns
        for message in self.query(EarlierMessage):
            if not self._earlier:
                await message.remove()
            else:
                message.show(count)
            return
        if self._earlier:
            message = EarlierMessage()
            await self.mount(message, after=self.banner)
            message.show(count)

    def _record(self, event: Event) -> None:
        if not recorded(self._shown[-1].events, event):
            self._shown.append(_Shown())
            recorded(self._shown[-1].events, event)

    def _begin(self) -> None:
        if not self._shown or self._shown[-1].events:
            self._shown.append(_Shown())

    async def _add(self, block: Widget) -> None:
        self._shown[-1].blocks.append(block)
        await self.mount(block)

    def _adder(
        self, shown: list[_Shown], before: Widget | None
    ) -> Callable[[Widget], Awaitable[None]]:
        async def add(block: Widget) -> None:
            shown[-1].blocks.append(block)
            await self.mount(block, before=before)

        return add

    # The cursor

    @property
    def blocks(self) -> list[Widget]:
        """What is laid out and can be walked, in order."""
        return [block for shown in self._shown for block in shown.blocks]

    @property
    def place(self) -> tuple[int, int]:
        """Which block the cursor is on, from 1, and of how many; 0 for none."""
        blocks = self.blocks
        return (blocks.index(self._at) + 1 if self._at in blocks else 0, len(blocks))

    async def move(self, step: int) -> None:
        """Put the cursor on another block, at first on the last one; it comes into view."""
        blocks = self.blocks
        if not blocks:
            return
        if self._at not in blocks:
            self._go_to(blocks[-1])
            return
        index = blocks.index(self._at) + step
        if index < 0 and await self.show_earlier():
            grown = self.blocks
            index += len(grown) - len(blocks)
            blocks = grown
        self._go_to(blocks[max(0, min(index, len(blocks) - 1))])

    def leave(self) -> None:
        """No cursor, and back to the end."""
        self._mark(None)
        self.anchor()

    def toggle(self) -> None:
        """Open or fold the block under the cursor."""
        if isinstance(self._at, ThinkingMessage | ToolMessage):
            self._at.toggle(not self._at.is_open)
            self.call_after_refresh(self._see, self._at)

    @property
    def text(self) -> str:
        """Of the block under the cursor; "" for none."""
        return block_text(self._at) if self._at is not None else ""

    async def find(self, words: str, step: int) -> int:
        """Put the cursor on the next block that holds `words`, whatever their case: -1 upwards, 1
        downwards, 0 at the cursor if it does, else upwards. Returns how many blocks that are laid
        out hold them; what is above is laid out as far as it is needed."""
        wanted = words.casefold()
        if not wanted:
            return 0
        while True:
            blocks = self.blocks
            found = [i for i, b in enumerate(blocks) if wanted in block_text(b).casefold()]
            at = blocks.index(self._at) if self._at in blocks else len(blocks)
            place = _next_place(found, at, step)
            distance = self._earlier.distance(wanted) if place is None and step <= 0 else 0
            if distance:
                await self.show_earlier(distance)
                continue
            if place is None and step == 0 and found:
                place = found[0]
            if place is not None:
                self._go_to(blocks[place], words)
            return len(found)

    def _go_to(self, block: Widget, words: str = "") -> None:
        """With `words`: to the line that holds them, opening what is folded over it."""
        self._mark(block)
        self.release_anchor()
        if words and isinstance(block, ThinkingMessage | ToolMessage) and not block.is_open:
            block.toggle(row_of(block, words) is None)
        self.call_after_refresh(self._see, block, words)

    def _mark(self, block: Widget | None) -> None:
        if self._at is not None:
            self._at.remove_class("at")
        self._at = block
        if block is not None:
            block.add_class("at")

    def _see(self, block: Widget, words: str = "") -> None:
        height = self.size.height
        row = row_of(block, words) if words else None
        if row is not None and block.outer_size.height > height:
            top = block.virtual_region.y + row - height // 2
            self.scroll_to(y=top, animate=False, force=True)
            return
        taller = block.outer_size.height > height
        self.scroll_to_widget(block, animate=False, top=taller, force=True)

    @property
    def banner(self) -> Banner:
        """The banner at the head."""
        return self.query_one(Banner)


def _next_place(found: Sequence[int], at: int, step: int) -> int | None:
    """Of the places `found`, the next one from `at`: see `Transcript.find`."""
    if step > 0:
        return next((index for index in found if index > at), None)
    if step == 0 and at in found:
        return at
    return next((index for index in reversed(found) if index < at), None)
