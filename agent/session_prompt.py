"""The prompt of a session: which profile it has, how much its model thinks, and its segments up to
the first user turn.

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

__all__ = ["session_prefix", "session_profile", "session_thinking", "thinking_notices"]

_LEVELS = ("off", "low", "high", "max")


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

    return render_prompt(
        profile,
        tools,
        facts,
        effort=engine.efforts[session_thinking(settings, engine)],
        append=settings.append_system_prompt,
        memory=memory.text,
    )


def session_thinking(settings: Settings, engine: Engine) -> str:
    """The level of thinking: the one asked for, or the next one up that this model was trained
    with, or else its highest."""
    asked = settings.think or engine.default_thinking
    if asked in engine.efforts:
        return asked
    known = [level for level in _LEVELS if level in engine.efforts]
    above = [level for level in known if _LEVELS.index(level) > _LEVELS.index(asked)]
    return (above or known[-1:])[0]


def thinking_notices(settings: Settings, engine: Engine) -> list[str]:
    """A line where a session thinks otherwise than it was asked to."""
    chosen = session_thinking(settings, engine)
    if settings.think in (None, chosen):
        return []
    known = ", ".join(engine.efforts)
    return [f"{engine.model_name} has thinking {known} and not {settings.think}; it is {chosen}"]
