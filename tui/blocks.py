"""What can be asked of any block of the transcript: what it says, and on which of its rows.

In: a block. Out: displayable text, a number. No state.
"""

from textual.geometry import Region
from textual.widget import Widget

from ds4_agent.tui.messages import NoticeMessage, ThinkingMessage, UserMessage
from ds4_agent.tui.tool import ToolMessage

__all__ = ["block_text", "row_of"]


def block_text(block: Widget) -> str:
    """What a block says, folded or not."""
    if isinstance(block, UserMessage | NoticeMessage | ThinkingMessage | ToolMessage):
        return block.text
    parts = [str(getattr(part, "source", "")) for part in block.children]  # an answer's
    return "\n\n".join(parts).strip()


def row_of(block: Widget, words: str) -> int | None:
    """The first row of a block, as it is laid out, that shows `words`, whatever their case; None
    where no single row does."""
    wanted = words.casefold()
    for leaf in [block, *block.query("*")]:
        if leaf.children or not leaf.size:
            continue
        top, widget = 0, leaf
        while widget is not block and isinstance(widget.parent, Widget):
            top += widget.virtual_region.y
            widget = widget.parent
        for row, strip in enumerate(leaf.render_lines(Region(0, 0, *leaf.outer_size))):
            if wanted in strip.text.casefold():
                return top + row
    return None
