"""What the keys of the screen do, as /help tells it: (keys, meaning)."""

__all__ = ["KEYS"]

KEYS = (
    ("Enter", "send; while the model works: given to it with its next results, or after it"),
    ("Shift+Enter, Ctrl+J", "new line"),
    ("Up, Down, Ctrl+R", "earlier prompts of this directory; search them"),
    ("Tab", "complete a / command or an @ file"),
    ("Ctrl+G", "write the prompt in your editor ($VISUAL, $EDITOR)"),
    ("Esc", "interrupt the model; queued prompts come back to the input"),
    ("Alt+Up", "queued prompts come back to the input; the model works on"),
    ("Esc Esc", "back to before an earlier prompt; clear what is written"),
    ("Ctrl+C", "clear the input, interrupt, then quit"),
    ("Shift+Tab", "permission mode: ask, accept-edits, plan, auto"),
    ("Ctrl+Z", "suspend; `fg` goes on"),
    ("Ctrl+O", "open or fold thinking and tool calls (or click one)"),
    ("PageUp, PageDown", "scroll the transcript"),
    ("Tab", "walk the transcript with the arrows: open a block, copy it"),
    ("Ctrl+F", "find in the transcript"),
)
