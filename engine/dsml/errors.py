"""What can be wrong with what the DSML rooms are given. Each message is one line for the caller."""

from ds4_agent.engine.errors import EngineError

__all__ = ["GrammarError", "PromptError"]


class PromptError(ValueError):
    """Messages, effort or calls that the V4 prompt format cannot express."""


class GrammarError(EngineError):
    """A name that a call cannot carry, or an id that the grammar does not allow where it came."""
