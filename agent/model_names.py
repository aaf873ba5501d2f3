"""What a model's name stands for: nano, scripted:FILE, a repository that was pulled, a directory.

In: a name as the user gives it, and where pulled models are. Out: what the engine opens, or a
directory. It reads no file of a model.
"""

from __future__ import annotations

import os
from pathlib import Path

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.places import Places, find_places
from ds4_agent.agent.pulled import Repository, pulled_models

__all__ = ["SCRIPTED", "model_directory", "model_spec", "names_at_hand", "pulled_directory"]

SCRIPTED = "scripted:"


def model_spec(name: str | None, places: Places) -> str | None:
    """What `engine.open_engine` takes for a name. A repository that was pulled goes before a
    directory of that name, which can be written `./OWNER/NAME`. Raises ModelFormatError."""
    if name is None or name == "nano" or name.startswith(SCRIPTED):
        return name
    pulled = pulled_directory(name, places)
    if pulled is not None:
        return os.fspath(pulled)
    if Repository.parsed(name) is not None and not os.path.isdir(Path(name).expanduser()):
        from ds4_agent.engine.errors import ModelFormatError

        raise ModelFormatError(
            f"{name} is neither a pulled model nor a directory; "
            f"`ds4-agent model pull {name}` gets it, `ds4-agent model list` shows what is there"
        )
    return name


def pulled_directory(name: str, places: Places) -> Path | None:
    """The directory a repository was pulled to; None for any other name."""
    repository = Repository.parsed(name)
    directory = None if repository is None else repository.directory(places.models)
    return directory if directory is not None and directory.is_dir() else None


def names_at_hand(places: Places, but: str = "") -> list[str]:
    """The pulled models that are complete, except the one whose directory is called `but`."""
    return [
        str(pulled.repository)
        for pulled in pulled_models(places.models)
        if pulled.is_complete and pulled.directory.name != but
    ]


def model_directory(name: str, places: Places | None = None) -> Path:
    """The directory a name stands for. `places`: this environment's unless given. Raises UsageError
    and ModelFormatError."""
    from ds4_agent.engine.errors import ModelFormatError
    from ds4_agent.engine.open import NANO

    spec = model_spec(name, places or find_places(os.environ))
    if spec is None or spec.startswith(SCRIPTED):
        raise UsageError(f"{name} is a script, not a checkpoint; it has no information")
    directory = NANO if spec == "nano" else Path(spec).expanduser()
    if not directory.is_dir():
        raise ModelFormatError(f"there is no model directory {directory}; see model list")
    return directory
