"""The `/` commands both screens know: their names, their help, and the texts they answer with.

In: what was typed, and plain facts. Out: text for the user. What a command does beyond text
(quitting, undoing) is done by the screen that was asked.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line
from ds4_agent.agent.events import Event, RunStarted, Usage
from ds4_agent.agent.sizes import shown_size
from ds4_agent.agent.slowness import slowness_lines
from ds4_agent.tui.describe import count, plural, seconds

if TYPE_CHECKING:
    from ds4_agent.sessions.summary import Summary

__all__ = [
    "COMMANDS",
    "COMPACTED",
    "command_of",
    "cost_text",
    "help_text",
    "prompt_rows",
    "session_rows",
    "shown_replay",
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
    "rewind": "back to before an earlier prompt, with or without the files",
    "sessions": "the sessions of this directory; choose one to go on with",
    "resume": "the same",
    "fork": "go on in a copy of this session",
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


FILES = ("the conversation only; files stay as they are", "the conversation and the files")
SHOWN_TURNS = 60  # of a session that goes on: more takes seconds to lay out


def session_rows(tree: "Sequence[tuple[str, Summary]]", now: float) -> list[str]:
    """A session a line, behind the lines of its branch: what it was about, its size, when it was
    last used."""
    return [
        lines
        + " · ".join(
            (
                one_line(summary.title, 60) or summary.id,
                plural(summary.turns, "prompt"),
                f"{count(summary.tokens)} tokens",
                shown_size(summary.bytes),
                _ago(now - summary.last_used),
            )
        )
        for lines, summary in tree
    ]


def prompt_rows(prompts: Sequence[str]) -> list[str]:
    """A prompt a line, the newest first; `len(prompts) - index` is its turn."""
    return [one_line(prompt, 100) for prompt in reversed(prompts)]


def shown_replay(events: Sequence[Event]) -> tuple[Sequence[Event], int]:
    """The last turns of a replay, and how many earlier ones are left out."""
    starts = [index for index, event in enumerate(events) if isinstance(event, RunStarted)]
    if len(starts) <= SHOWN_TURNS:
        return events, 0
    return events[starts[-SHOWN_TURNS] :], len(starts) - SHOWN_TURNS


def _ago(passed: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if passed >= length:
            return f"{plural(int(passed // length), unit)} ago"
    return "just now"


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
