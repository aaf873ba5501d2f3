"""The prompt of a session from what it is given: its profile, facts of the directory, notes.

In: `RunOptions`, an engine, tools. Out: segments up to the first user turn. Reads files, starts
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.agent.prompt.facts import Facts
    from ds4_agent.agent.prompt.memory import Memory
    from ds4_agent.engine.api import Engine
    from ds4_agent.engine.dsml.segments import Segment
    from ds4_agent.tools.types import Tool

__all__ = ["gathered_facts", "gathered_memory", "session_prefix", "session_profile"]


def session_profile(options: RunOptions, engine: Engine) -> str:
    """The prompt profile of a session of this model."""
    from ds4_agent.agent.prompt.profile import profile_of

    model = (engine.default_profile, engine.context_length)
    return profile_of(options.settings, *model, keeps_states=options.keeps_states)


def session_prefix(
    options: RunOptions, engine: Engine, tools: Sequence[Tool], memory: Memory
) -> list[Segment]:
    """The session's prompt up to the first user turn. Raises UsageError."""
    from ds4_agent.agent.prompt.profile import render_prompt

    settings = options.settings
    thinking = settings.think or engine.default_thinking
    return render_prompt(
        session_profile(options, engine),
        tools,
        gathered_facts(options),
        effort=None if thinking == "off" else thinking,
        append=settings.append_system_prompt,
        memory=memory.text,
    )


def gathered_facts(options: RunOptions) -> Facts:
    """The facts of the working directory, today."""
    from ds4_agent.agent.prompt.facts import gather_facts

    return gather_facts(options.directory, today=datetime.now().astimezone().date())


def gathered_memory(options: RunOptions, profile: str) -> Memory:
    """The notes of the project and of the user; none for a profile that leaves them out."""
    from ds4_agent.agent.prompt.memory import Memory, gather_memory
    from ds4_agent.agent.prompt.profile import has_memory

    if not has_memory(profile):
        return Memory()
    return gather_memory(options.directory, options.places.memory_file)
