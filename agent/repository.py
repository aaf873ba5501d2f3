"""Which repository holds a directory, told by names on the disk. In: a directory. Out: the top of
its repository. Git is not asked, so nothing of the repository's own configuration is read.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["repository_top"]


def repository_top(directory: Path) -> Path | None:
    """The nearest of `directory` and those above it that has a `.git`; None where none has."""
    above = (directory, *directory.parents)
    return next((place for place in above if os.path.lexists(place / ".git")), None)
