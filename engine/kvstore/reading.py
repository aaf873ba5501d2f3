"""Reading one stored file: whole and verified, or not at all. In: the store directory and a label.
Out: the payload in memory of its own or of the caller, or why it was set aside. Raises nothing that
the disk does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from ds4_agent.engine.kvstore.durable import open_regular
from ds4_agent.engine.kvstore.fileformat import DamagedError, Plan, read_into, read_payload
from ds4_agent.engine.kvstore.layout import is_regular
from ds4_agent.engine.kvstore.quarantine import set_aside

__all__ = ["clear_the_way", "fill_stored", "read_stored"]

T = TypeVar("T")


def read_stored(directory: Path, label: str) -> tuple[memoryview | None, str]:
    """The payload and ""; or None and the reason for which the file is in `bad/` now; or None and
    "" where there is no file, or one that cannot be read now."""
    return _read(directory, label, read_payload)


def fill_stored(directory: Path, label: str, plan: Plan) -> tuple[bool, str]:
    """Whether the payload stands where `plan` wants it; the reason as of `read_stored`."""
    is_there, reason = _read(directory, label, partial(read_into, plan=plan))
    return bool(is_there), reason


def _read(directory: Path, label: str, read: Callable[[int, str], T]) -> tuple[T | None, str]:
    try:
        descriptor = open_regular(f"{directory}/{label}")
    except OSError:
        return None, clear_the_way(directory, label)
    try:
        seen = os.fstat(descriptor)
        try:
            return read(descriptor, label), ""
        except (DamagedError, OSError) as error:
            reason = str(error)
            return None, reason if set_aside(directory, label, seen, reason) else ""
    except (OSError, MemoryError):
        return None, ""  # the file may be sound
    finally:
        os.close(descriptor)


def clear_the_way(directory: Path, label: str) -> str:
    """Set aside what is no regular file (a link, a directory) under `label`; says so, or ""."""
    with suppress(OSError):
        seen = os.lstat(directory / label)
        reason = "not a regular file"
        if not is_regular(directory / label) and set_aside(directory, label, seen, reason):
            return reason
    return ""
