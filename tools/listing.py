"""The tool `list`: what is in a directory.

In: a directory and a depth. Out: one entry a line, directories with a trailing slash, sorted;
`.git` and what `.gitignore` names left out. Bounded, and says where it stopped.
"""

from __future__ import annotations

import os
import time

from ds4_agent.tools.api import tool
from ds4_agent.tools.ignore import walk
from ds4_agent.tools.types import ToolContext, ToolError, ToolResult
from ds4_agent.tools.workspace import failure, printable

ENTRY_LIMIT = 1000
TIME_LIMIT_S = 10.0


@tool(effect="read", name="list")
def list_directory(context: ToolContext, path: str = ".", depth: int = 1) -> ToolResult:
    """List a directory; ignored files are left out.

    path: directory, relative to the workspace (default: the workspace)
    depth: how many levels down (default 1)
    """
    if depth < 1:
        raise ToolError("depth must be at least 1")
    place = context.workspace.locate(path)
    try:
        with os.scandir(place.real):
            pass
    except NotADirectoryError:
        raise ToolError(f"{place.shown} is not a directory; use read") from None
    except OSError as error:
        raise failure(error, place, "list") from error
    deadline = time.monotonic() + TIME_LIMIT_S
    names: list[str] = []
    for entry in walk(place.real, depth=depth):
        if len(names) == ENTRY_LIMIT:
            names.append(f"… more than {ENTRY_LIMIT} entries; list a directory below")
            break
        if context.cancel.is_set() or time.monotonic() > deadline:
            names.append("… stopped: reading the directories takes too long; list one below")
            break
        names.append(printable(entry.path) + ("/" if entry.is_directory else ""))
    return ToolResult("\n".join(names) or f"{place.shown} is empty")
