"""The `/` commands both screens know: their names, their help, and the texts they answer with.

In: what was typed, and plain facts. Out: text for the user. What a command does beyond text
(quitting, undoing) is done by the screen that was asked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line
from ds4_agent.agent.events import Usage
from ds4_agent.agent.material import typed
from ds4_agent.agent.resume_time import shown_time
from ds4_agent.agent.sizes import shown_size
from ds4_agent.agent.slowness import slowness_lines
from ds4_agent.tui.describe import count, plural, seconds

if TYPE_CHECKING:
    from ds4_agent.sessions.summary import Summary

__all__ = [
    "COMMANDS",
    "COMPACTED",
    "SHOWN_TURNS",
    "Order",
    "cost_text",
    "help_text",
    "order_of",
    "prompt_rows",
    "session_rows",
    "slow_text",
    "tools_text",
    "uncompact_text",
]

SHORT_TITLE = 30  # characters: the figures behind it have to stay on a narrow screen
COMPACTED = "The conversation goes on from a summary of itself; /uncompact returns to the whole."
COMMANDS = {
    "help": "keys and commands",
    "model": "which model answers; /model NAME goes on with another",
    "sessions": "the sessions of this directory; choose one to go on with",
    "resume": "the same",
    "fork": "go on in a copy of this session",
    "rewind": "back to before an earlier prompt, with or without the files",
    "undo": "take back what the last prompt did to files",
    "btw": "a question in between, of which nothing stays: /btw QUESTION",
    "try": "2 to 8 answers to choose from, each in a worktree: /try 3 [--verify COMMAND] PROMPT",
    "compact": "go on from a summary of the conversation",
    "uncompact": "back to the conversation before its summary",
    "cost": "tokens and time of this session",
    "why-slow": "what of the last prompt was computed, and why it was not on disk",
    "tools": "what the model can do here",
    "trust": "let the tools and commands run that this repository brings",
    "export": "write the session to a file: /export [FILE.md or FILE.json]",
    "theme": "dark or light",
    "quit": "end the session (also Ctrl+D)",
}
_ORDER = re.compile(r"/([a-z0-9][a-z0-9_-]*(?::[a-z0-9_-]+)*)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Order:
    """A command and what stands behind it."""

    name: str
    arguments: str = ""


def order_of(text: str) -> Order | None:
    """The command that `text` begins with; a path like `/etc/hosts` is none, and neither is what
    begins with a blank."""
    match = _ORDER.fullmatch(text.rstrip())
    return Order(match[1], (match[2] or "").strip()) if match else None


def help_text(keys: Sequence[tuple[str, str]], commands: Sequence[tuple[str, str]]) -> str:
    """The keys of this screen, what can be written, then the commands."""
    rows = [*keys, *WRITTEN, *((f"/{name}", what) for name, what in commands)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {what}" for name, what in rows)


def tools_text(signatures: Sequence[str]) -> str:
    """One tool a line, as the model sees it."""
    return "\n".join(signatures) if signatures else "The tools are known once the model is loaded."


def uncompact_text(is_back: bool) -> str:
    """What became of `/uncompact`."""
    return "Back in the whole conversation." if is_back else "Nothing was summarised here."


WRITTEN = (
    ("@file", "give the model a file's text with the prompt; Tab completes"),
    ("!command", "run it yourself; the model reads what it printed with the next prompt"),
)
FILES = ("the conversation only; files stay as they are", "the conversation and the files")
SHOWN_TURNS = 60  # of a session that goes on: more takes seconds to lay out


def session_rows(
    tree: "Sequence[tuple[str, Summary]]",
    times: Mapping[str, float | None],
    now: float,
    here: str = "",
) -> list[str]:
    """A session a line, behind the lines of its branch: what it was about, its size, how long until
    it can go on (`times`, where that is known; not of the one that goes on `here`), when it was
    last used: what a narrow screen cuts off is the least of it."""
    return [
        lines
        + " · ".join(
            (
                one_line(summary.title, SHORT_TITLE) or summary.id,
                plural(summary.turns, "prompt"),
                shown_size(summary.bytes),
                *_until_it_goes_on(times.get(summary.id), is_here=summary.id == here),
                _ago(now - summary.last_used),
                f"{count(summary.tokens)} tokens",
            )
        )
        for lines, summary in tree
    ]


def _until_it_goes_on(time: float | None, *, is_here: bool) -> list[str]:
    if is_here:
        return ["you are here"]
    return [f"{shown_time(time)} to resume"] if time else []


def prompt_rows(prompts: Sequence[str]) -> list[str]:
    """A prompt a line, the newest first; `len(prompts) - index` is its turn."""
    return [one_line(typed(prompt).text, 100) for prompt in reversed(prompts)]


def _ago(passed: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if passed >= length:
            return f"{plural(int(passed // length), unit)} ago"
    return "just now"


def slow_text(usage: Usage | None, divergence: str = "", speculation: str = "") -> str:
    """Of the last prompt; `usage` None before the first."""
    if usage is None:
        return "Nothing was read yet."
    return "\n".join(slowness_lines(usage, divergence, speculation))


def cost_text(usage: Usage, elapsed: float, turns: int) -> str:
    """Exact counts since the session began."""
    sampled = usage.output_tokens - usage.forced_tokens
    return (
        f"{plural(turns, 'prompt')}, {seconds(elapsed)} of work\n"
        f"read     {usage.input_tokens:,} tokens ({usage.cached_tokens:,} restored, "
        f"{usage.prefilled_tokens:,} computed)\n"
        f"written  {usage.output_tokens:,} tokens ({sampled:,} sampled, "
        f"{usage.forced_tokens:,} forced by the grammar)\n"
        f"guessed  {usage.drafted_tokens:,} tokens ({usage.accepted_tokens:,} right)"
    )
