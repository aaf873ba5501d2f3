"""What a change of a file can do. Most only change it; what is written where the agent itself looks
for things to run may run later. In: the arguments of a call. Out: its effect.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from ds4_agent.tools.types import Effect

# A repository's plugins and hooks; `tools/` in it is loaded when a session starts.
RUNS_LATER = ".ds4"


def effect_of_change(arguments: Mapping[str, Any]) -> Effect:
    """`edit`, and `execute` for a path inside `.ds4`: who accepts edits has not accepted that."""
    parts = PurePath(os.path.normpath(str(arguments.get("path", "")))).parts
    # Without regard to case: on macOS and Windows `.DS4` is the same folder.
    return "execute" if any(part.casefold() == RUNS_LATER for part in parts) else "edit"
