"""Everything a run is built from, as the command line and the settings give it.

In: nothing. Out: the frozen `RunOptions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ds4_agent.agent.choose import Choice
from ds4_agent.agent.config import Settings
from ds4_agent.agent.places import Places

__all__ = ["Asks", "RunOptions"]

Asks = Literal["", "resume", "fork"]


@dataclass(frozen=True)
class RunOptions:
    """Everything an agent is built from. `directory` exists and is absolute."""

    settings: Settings
    directory: Path
    places: Places
    add_dirs: tuple[Path, ...] = ()
    is_headless: bool = False  # nobody to ask, unless there is an approver
    yolo: bool = False
    trusts: bool = False  # --trust: what this repository brings may run, from now on
    typed_rules: tuple[str, ...] = ()  # those of the command line, which `settings` has as well
    keeps_log: bool = True
    resumes: Choice | None = None  # the session that goes on
    asks_for: Asks = ""  # which session to go on with, or to copy: a screen asks
    keeps_states: bool = True  # on disk, so that nothing is computed twice
    uses_grammar: bool = True
    approvals_log: Path | None = None
    trace_tokens: Path | None = None
    front: str = ""  # before the system text; `training.evaluate` measures with it
