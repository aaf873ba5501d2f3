"""ds4-agent: a terminal coding agent with its language model in the same process.

The public surface for plugin authors is `tool`; everything else is reached through the
`ds4-agent` command. Importing this package loads neither MLX nor Textual, and nothing at
all until a name is asked for, so that `ds4-agent --help` answers at once.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ds4_agent.tools.api import tool

__all__ = ["__version__", "tool"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "tool":
        from ds4_agent.tools.api import tool

        return tool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
