"""The prompt up to before the first user turn, for each prompt profile.

In: a profile's name, the tools, the facts. Out: a list of segments, the same for the same input.
It is computed once a session and never again: what changes later is appended, never re-rendered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.prompt.facts import Facts
from ds4_agent.agent.prompt.handbook import chapters
from ds4_agent.engine.dsml.encode import reminder_segments, system_segments
from ds4_agent.engine.dsml.segments import LATEST_REMINDER, Segment, control, data

if TYPE_CHECKING:
    from ds4_agent.agent.config import Settings

PROFILES = ("handbook", "lean", "nano")
HANDBOOK_CONTEXT = 104_000  # tokens of context from which on a prompt of 26,000 is worth its place


class ToolDescription(Protocol):
    """What a prompt needs of a tool (`ds4_agent.tools.types.Tool` has it)."""

    def schema(self) -> Mapping[str, Any]: ...
    def signature(self) -> str: ...


class UnknownProfileError(UsageError):
    """A profile that does not exist (yet); the message is the one line to show."""


def render_prompt(
    profile: str,
    tools: Sequence[ToolDescription],
    facts: Facts,
    *,
    effort: str | None = None,
    append: str = "",
    memory: str = "",
) -> list[Segment]:
    """The session's prompt: BOS, system text with the tools, reminder with notes and facts.

    `effort` is the reasoning effort whose prefix goes before the system text (None: none);
    `append` is the user's own addition to the system text; `memory` is the project's notes, which
    a profile for which `has_memory` is false leaves out. Raises UnknownProfileError.
    """
    return [
        segment
        for _, section in sections(profile, tools, facts, effort, append, memory)
        for segment in section
    ]


def stable_part(prompt: Sequence[Segment]) -> list[Segment]:
    """The beginning of a `render_prompt` that is the same in every directory on every day: all up
    to the reminder. Its end is the end of a token, as what follows is a control token."""
    return list(takewhile(lambda segment: segment != control(LATEST_REMINDER), prompt))


def sections(
    profile: str,
    tools: Sequence[ToolDescription],
    facts: Facts,
    effort: str | None = None,
    append: str = "",
    memory: str = "",
) -> list[tuple[str, list[Segment]]]:
    """`render_prompt` as named parts, in order (`config prompt` shows what each costs)."""
    if profile == "nano":
        return _nano(tools, facts, append)
    if profile == "lean":
        words = [("system", [data(profile_text("lean").rstrip("\n"))])]
        return _whole(words, tools, facts, effort, append, memory)
    if profile == "handbook":
        return _whole(chapters(), tools, facts, effort, append, memory)
    raise UnknownProfileError(f"no prompt profile `{profile}`; there are {', '.join(PROFILES)}")


def profile_of(
    settings: Settings, of_model: str, context_length: int, *, keeps_states: bool
) -> str:
    """The profile of a run: the one that is set, else `of_model`, which the engine asks for.

    A full model gets the handbook where its state is read from disk and three quarters of the
    context stay free. Elsewhere each session would compute it anew, which takes a minute or more.
    """
    if settings.prompt_profile is not None:
        return settings.prompt_profile
    is_kept = keeps_states and settings.cache_budget > 0
    is_roomy = context_length >= HANDBOOK_CONTEXT
    return "handbook" if of_model == "lean" and is_kept and is_roomy else of_model


def has_memory(profile: str) -> bool:
    """Whether the profile holds the project's notes. The small model was trained without any."""
    return profile != "nano"


def has_task(profile: str) -> bool:
    """Whether the model is offered sub-agents. The small model was trained on other tools only."""
    return profile != "nano"


def profile_text(profile: str) -> str:
    """The profile's own words, as shipped."""
    return files("ds4_agent.agent.prompt").joinpath(f"{profile}.md").read_text(encoding="utf-8")


def _nano(
    tools: Sequence[ToolDescription], facts: Facts, append: str
) -> list[tuple[str, list[Segment]]]:
    # The bundled model was trained on exactly these bytes: one signature a line, no TOOLS block.
    text = profile_text("nano") + "\n".join(tool.signature() for tool in tools)
    text += f"\n{append}" if append else ""
    return [
        ("system", system_segments(text, [], effort=None)),
        ("facts", reminder_segments(f"Tests: {facts.tests or 'unknown'}")),
    ]


def _whole(
    words: Sequence[tuple[str, Sequence[Segment]]],
    tools: Sequence[ToolDescription],
    facts: Facts,
    effort: str | None,
    append: str,
    memory: str,
) -> list[tuple[str, list[Segment]]]:
    """The profiles of a full model: the named `words`, the TOOLS block, the reminder."""
    whole = system_segments("", [tool.schema() for tool in tools], effort=effort)
    end = len(system_segments("", [], effort=effort))
    texts = [*words]
    if append:
        texts.append(("append", [data(append)]))
    (first, said), *more = texts
    return [
        (first, [*whole[: end - 1], *said]),  # in place of the empty system text
        *((name, [data("\n\n"), *text]) for name, text in more),
        ("tools", whole[end:]),
        *_reminder(facts, memory),
    ]


def _reminder(facts: Facts, memory: str) -> list[tuple[str, list[Segment]]]:
    known = [
        ("Date", facts.date),
        ("Directory", facts.directory),
        ("Git branch", facts.branch or "none"),
        ("Tests", facts.tests or "unknown"),
    ]
    reminder = "\n".join(f"{name}: {value}" for name, value in known if value)
    if not memory:
        return [("facts", reminder_segments(reminder))]
    # Late, so that all repositories share the tokens before it; ahead of the facts, which change
    # daily. Both are the one reminder, as the format has it.
    return [("memory", reminder_segments(f"{memory}\n\n")), ("facts", [data(reminder)])]
