"""The prompt of a run from its parts: words, `@file` arguments, standard input.

In: the arguments and stdin. Out: one text. Without words stdin is the prompt; with them it is
material under the prompt, like every file. Nothing is cut: what does not fit is an error later.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from ds4_agent.agent.errors import UsageError

__all__ = ["PATIENCE", "compose_prompt", "file_part", "read_stdin"]

PATIENCE = 3.0  # seconds a pipe with nothing in it is waited for when there is a prompt already


def compose_prompt(
    words: Sequence[str], directory: Path, piped: str, meant: Callable[[str], str] = str
) -> str:
    """The prompt. Raises UsageError for a file that cannot be read and for no prompt at all.

    A word that begins with `@` names a file whose text goes below the prompt. `meant` says what the
    user's own words stand for (`/command`).
    """
    spoken = [word for word in words if not _is_file_word(word)]
    prompt = meant(" ".join(spoken).strip("\n") or piped.strip("\n"))
    if not prompt.strip():
        raise UsageError("there is no prompt; give one as an argument or on standard input")
    parts = [prompt]
    parts += [file_part(word[1:], directory) for word in words if _is_file_word(word)]
    if spoken and piped.strip():
        parts.append(f"Standard input:\n{piped}")
    return "\n\n".join(parts)


def read_stdin(
    stdin: BinaryIO, has_prompt: bool, warn: Callable[[str], None], patience: float = PATIENCE
) -> str:
    """What was piped in; "" for a terminal, `/dev/null`, or a pipe that stays silent while there is
    a prompt: many programs start others with a pipe they never close."""
    try:
        kind = os.fstat(stdin.fileno()).st_mode
    except (OSError, ValueError):  # closed
        return ""
    if stat.S_ISCHR(kind):
        return ""
    if has_prompt and not stat.S_ISREG(kind) and not _has_input(stdin, patience):
        warn(f"nothing came on standard input for {patience:g} s; going on without it")
        return ""
    try:
        return stdin.read().decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"cannot read standard input: {error.strerror or error}") from error


def _has_input(stdin: BinaryIO, patience: float) -> bool:
    ready, _, _ = select.select([stdin], [], [], patience)
    return bool(ready)


def _is_file_word(word: str) -> bool:
    return len(word) > 1 and word[0] == "@" and not any(map(str.isspace, word))


def file_part(name: str, directory: Path) -> str:
    """A file's text under its name. Raises UsageError."""
    path = directory / Path(name).expanduser()
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"@{name} is not a file")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read @{name}: {reason}") from error
    if b"\0" in data:
        raise UsageError(f"@{name} is a binary file")
    return f"File {name}:\n{data.decode('utf-8', 'replace')}"
