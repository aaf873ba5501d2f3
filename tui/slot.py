"""The slot below the transcript: the input, or what stands there in its place for a while.

In: a question, a list or a walk to put there. Out: it, with the keys; afterwards the input again.
No key is lost in between: it goes to the one or to the other.
"""

from textual.containers import VerticalGroup
from textual.widget import Widget

from ds4_agent.tui.input import PromptBox, PromptInput

__all__ = ["Slot"]


class Slot(VerticalGroup):
    """Holds a `PromptBox` and at most one panel."""

    DEFAULT_CSS = """
    Slot { height: auto; }
    """

    async def fill(self, panel: Widget) -> None:
        """Put the panel in place of the input."""
        prompt = self.query_one(PromptInput)
        with self.app.batch_update():
            await self.mount(panel)
            if self.app.focused in (None, prompt):  # else it has given them to a part of its own
                self.screen.set_focus(panel)
            self.query_one(PromptBox).display = False

    async def free(self, kind: type[Widget]) -> bool:
        """Take away a panel of this kind; the input is back. False where there is none."""
        panels = self.query(kind)
        if not panels:
            return False
        await panels.remove()
        self.query_one(PromptBox).display = True
        self.screen.set_focus(self.query_one(PromptInput))
        return True
