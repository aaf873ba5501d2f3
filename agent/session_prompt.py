"""The prompt of a session: which profile it has, and its segments up to the first user turn.

In: settings, the model, tools, facts and notes. Out: the profile's name, segments. Reads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.agent.config import Settings
    from ds4_agent.agent.prompt.facts import Facts
    from ds4_agent.agent.prompt.memory import Memory
    from ds4_agent.engine.api import Engine
    from ds4_agent.engine.dsml.segments import Segment
    from ds4_agent.tools.types import Tool

__all__ = ["session_prefix", "session_profile"]


def session_profile(settings: Settings, engine: Engine, *, keeps_states: bool) -> str:
    """The prompt profile of a session of this model."""
    from ds4_agent.agent.prompt.profile import profile_of

    model = (engine.default_profile, engine.context_length)
    return profile_of(settings, *model, keeps_states=keeps_states)


def session_prefix(
    profile: str,
    settings: Settings,
    engine: Engine,
    tools: Sequence[Tool],
    facts: Facts,
    memory: Memory,
) -> list[Segment]:
    """The session's prompt. Raises UsageError."""
    from ds4_agent.agent.prompt.profile import render_prompt

    thinking = settings.think or engine.default_thinking
    return render_prompt(
        profile,
        tools,
        facts,
        effort=None if thinking == "off" else thinking,
        append=settings.append_system_prompt,
        memory=memory.text,
    )
