"""The colours the user chose with /theme, for the sessions to come.

In: the user's places. Out: "dark", "light", or "" where none was chosen; one short file in the
state directory. A choice that cannot be read or written costs only itself.
"""

import os
from contextlib import suppress
from pathlib import Path

from ds4_agent.agent.places import Places

__all__ = ["keep_theme", "kept_theme"]

LONGEST = 16  # bytes of the file that are read


def kept_theme(places: Places | None) -> str:
    """What was chosen last; anything else in the file counts as nothing."""
    if places is None:
        return ""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with open(os.open(_file(places), flags), "rb") as opened:
            name = opened.read(LONGEST).strip()
    except OSError:
        return ""
    return name.decode("ascii") if name in (b"dark", b"light") else ""


def keep_theme(places: Places | None, name: str) -> None:
    """Remember "dark" or "light"."""
    if places is None:
        return
    file = _file(places)
    new = file.with_suffix(f".{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(new, flags, 0o600), "wb") as opened:
            opened.write(name.encode("ascii") + b"\n")
        os.replace(new, file)


def _file(places: Places) -> Path:
    return places.state / "theme"
