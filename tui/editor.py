"""The user's own editor for a prompt: `$VISUAL`, else `$EDITOR`, else vi or nano.

In: a text. Out: the text as it was saved. The terminal is the editor's meanwhile; who calls must
have let go of it. Raises UsageError with the text lost to nobody.
"""

import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ds4_agent.agent.errors import UsageError

__all__ = ["edited", "editor_command"]


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """The words of the editor's command. Raises UsageError."""
    for name in ("VISUAL", "EDITOR"):
        if environment.get(name, "").strip():
            try:
                return shlex.split(environment[name])
            except ValueError as error:
                raise UsageError(f"${name} cannot be read: {error}") from error
    for name in ("vi", "nano"):
        if shutil.which(name):
            return [name]
    raise UsageError("there is no editor; set $VISUAL or $EDITOR")


def edited(text: str, environment: Mapping[str, str]) -> str:
    """`text` as it was left in the editor."""
    from ds4_agent.tools.process import run_on_terminal

    command = editor_command(environment)
    with tempfile.TemporaryDirectory(prefix="ds4-agent-") as directory:  # 0700
        file = Path(directory, "prompt.md")
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        try:
            code = run_on_terminal([*command, os.fspath(file)])
            after = file.read_bytes().decode("utf-8", "replace")
        except OSError as error:
            raise UsageError(f"{command[0]}: {error.strerror or error}") from error
    if code:
        raise UsageError(f"{command[0]} ended with exit code {code}; the prompt stays as it was")
    return after.rstrip("\n")
