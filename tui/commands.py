"""The `/` commands both screens know: their names, their help, and the texts they answer with.

In: what was typed, and plain facts. Out: text for the user. What a command does beyond text
(quitting, undoing) is done by the screen that was asked.
"""

import re
from collections.abc import Sequence

from ds4_agent.agent.events import Usage
from ds4_agent.agent.slowness import slowness_lines
from ds4_agent.tui.describe import plural, seconds

__all__ = [
    "COMMANDS",
    "COMPACTED",
    "command_of",
    "cost_text",
    "help_text",
    "slow_text",
    "tools_text",
    "uncompact_text",
]

COMPACTED = "The conversation goes on from a summary of itself; /uncompact returns to the whole."
COMMANDS = {
    "help": "keys and commands",
    "tools": "what the model can do here",
    "compact": "go on from a summary of the conversation",
    "uncompact": "back to the conversation before its summary",
    "cost": "tokens and time of this session",
    "why-slow": "what of the last prompt was computed, and why it was not on disk",
    "undo": "take back what the last prompt did to files",
    "quit": "end the session (also Ctrl+D)",
}
_COMMAND = re.compile(r"/([a-z][a-z-]*)")


def command_of(text: str) -> str | None:
    """The command's name if `text` is one; a path like `/etc/hosts` is none."""
    match = _COMMAND.fullmatch(text.strip())
    return match[1] if match else None


def help_text(keys: Sequence[tuple[str, str]]) -> str:
    """The keys of this screen, then the commands."""
    rows = [*keys, *((f"/{name}", what) for name, what in COMMANDS.items())]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {what}" for name, what in rows)


def tools_text(signatures: Sequence[str]) -> str:
    """One tool a line, as the model sees it."""
    return "\n".join(signatures) if signatures else "The tools are known once the model is loaded."


def uncompact_text(is_back: bool) -> str:
    """What became of `/uncompact`."""
    return "Back in the whole conversation." if is_back else "Nothing was summarised here."


def slow_text(usage: Usage | None, divergence: str) -> str:
    """Of the last prompt; `usage` None before the first."""
    if usage is None:
        return "Nothing was read yet."
    return "\n".join(slowness_lines(usage, divergence))


def cost_text(usage: Usage, elapsed: float, turns: int) -> str:
    """Exact counts since the session began."""
    sampled = usage.output_tokens - usage.forced_tokens
    return (
        f"{plural(turns, 'prompt')}, {seconds(elapsed)} of work\n"
        f"read     {usage.input_tokens:,} tokens ({usage.cached_tokens:,} restored, "
        f"{usage.prefilled_tokens:,} computed)\n"
        f"written  {usage.output_tokens:,} tokens ({sampled:,} sampled, "
        f"{usage.forced_tokens:,} forced by the grammar)"
    )
