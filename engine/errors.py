"""The errors of the engine. Each message is the one line a user is shown: it names the thing that
is wrong and what to do about it. All of them end a run with exit code 2 (infrastructure), except
`Cancelled`, which says that the caller asked to stop and is no error.
"""

__all__ = [
    "Cancelled",
    "ContextFullError",
    "ConversionError",
    "DestinationError",
    "EngineError",
    "MemoryLimitError",
    "ModelFormatError",
    "ScriptError",
    "StoreError",
    "TokenRangeError",
]


class EngineError(Exception):
    """The engine cannot do what it was asked: model, memory, disk or the engine thread itself."""


class ModelFormatError(EngineError):
    """A model directory is missing, truncated or foreign, or a tensor does not fit the config."""


class MemoryLimitError(EngineError):
    """A model and its context do not fit into this machine's memory."""


class ConversionError(EngineError):
    """A conversion of a model cannot go on: disk, source, or another one under way."""


class DestinationError(EngineError):
    """The directory a conversion is to write into cannot be meant. Exit code 1 (usage)."""


class ContextFullError(EngineError):
    """More tokens than the context holds: `needed` were asked for, `limit` is its length."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(
            f"the prompt needs {needed:,} tokens and the context holds {limit:,}; "
            "shorten it, start a new session or give a larger --ctx"
        )
        self.needed = needed
        self.limit = limit


class TokenRangeError(EngineError):
    """A token id is not one of the model's vocabulary."""


class ScriptError(EngineError):
    """A `scripted:FILE` is malformed, is used up, or expected another prompt."""


class StoreError(EngineError):
    """The store of states on disk cannot be looked after now: another process writes, or the disk
    refuses. (An agent that uses it never sees this: it computes again.)"""


class Cancelled(Exception):  # noqa: N818 - not an error: control flow, named for what it means
    """The caller asked to stop. What was finished before is kept and the state is valid."""
