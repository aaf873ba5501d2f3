"""What helps with writing a prompt, for both screens; `orders.Orders` is one."""

from collections.abc import Sequence
from typing import Protocol

from ds4_agent.tui.complete import Files
from ds4_agent.tui.history import History

__all__ = ["Writing"]


class Writing(Protocol):
    """The directory's prompts and files, and the commands with what each does."""

    history: History
    files: Files | None

    def names(self) -> Sequence[tuple[str, str]]: ...
