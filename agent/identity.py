"""What a session says about itself, and what it changes to when its tools do. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.agent.steps import Model
    from ds4_agent.tools.types import Tool

__all__ = ["Identity", "Retooled"]


@dataclass(frozen=True)
class Identity:
    """What a session says about itself."""

    session_id: str
    model: str
    directory: str
    tools: tuple[str, ...]
    tool_signatures: tuple[str, ...] = ()
    task: str = ""  # the call whose sub-agent this is, "" for the session itself
    hint: str = ""  # one line a newcomer should read, "" for none


@dataclass(frozen=True)
class Retooled:
    """Other tools from this turn on; `announcement` is what the model reads of it ("": nothing)."""

    identity: Identity
    model: Model
    tools: tuple[Tool, ...]
    announcement: str
    notices: tuple[str, ...]
