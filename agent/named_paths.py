"""What of a command line leads out of the workspace, as far as its text tells.

In: a command line and who knows where a path leads. Out: the paths, for the one who is asked. It is
told and nothing more: where a command really goes nobody can read off it (`python -c …`), so which
commands run is decided by the mode and the rules, and a person sees what could be seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from ds4_agent.agent.shell_syntax import argument_words

__all__ = ["outside_paths"]

MOST = 4  # that are told
_HOME = re.compile(r"\A\$(?:HOME\b|\{HOME\})")
_NO_PLACE = re.compile(r"/dev/(?:null|zero|u?random|tty|std(?:in|out|err)|fd/\d+)\Z")


def outside_paths(command: str, outside: Callable[[str], Path | None]) -> tuple[str, ...]:
    """Where the words of a command lead out, each once. `outside`: see `Workspace.outside`."""
    found: dict[str, None] = {}
    for word in argument_words(command):
        for part in (word, *word.split("=")[1:]):  # `--file=/etc/x`
            path = _HOME.sub("~", part)
            if not path or "\0" in path or _NO_PLACE.match(path):
                continue
            real = outside(path)
            if real is not None and _is_meant(real):
                found[os.fspath(real)] = None
    return tuple(found)[:MOST]


def _is_meant(real: Path) -> bool:
    """`/x/d` of sed is no path: nothing is there, nor anything that could hold it."""
    return os.path.lexists(real) or (real.parent != Path("/") and os.path.lexists(real.parent))
