"""Changes the program makes to the user's config.toml. In: the file, what to change in it.
Out: the file with that change, its comments and layout kept; whole, or as it was.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ds4_agent.agent.errors import UsageError

__all__ = ["change_config"]


def change_config(config_file: Path, change: Callable[[Any], bool], aim: str) -> None:
    """Write the file with a change to its document, unless that says there is none. Raises
    UsageError ("cannot `aim` FILE") with the file as it was."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    file = Path(os.path.realpath(config_file))  # a link to the user's dotfiles stays one
    try:
        text = file.read_bytes().decode("utf-8") if file.exists() else ""
        document = tomlkit.parse(text)
        if change(document):
            _write(file, tomlkit.dumps(document).encode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot write {config_file}: {error.strerror or error}") from error
    except (TOMLKitError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise UsageError(f"cannot {aim} {config_file}: {error}") from error


def _write(file: Path, data: bytes) -> None:
    """The whole file or nothing, with the mode it had."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    descriptor, name = tempfile.mkstemp(prefix=".config.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(name, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
