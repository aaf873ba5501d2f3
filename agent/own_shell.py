"""Commands that the user runs themselves (`!`): shown like a call of the model, and kept for it.

In: a command line. Out: the events of a call of `bash`, and a `Ran` for the next prompt. Nobody is
asked: the user typed it. It has no input and no terminal, like the model's commands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.events import CallFinished, CallReady, CallStarted, ToolOutput
from ds4_agent.agent.material import Ran
from ds4_agent.agent.threads import streamed

if TYPE_CHECKING:
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.types import ToolResult

__all__ = ["OwnShell"]

GIVEN, TAIL = 16 * 1024, 8 * 1024  # bytes of a result that the model is given: in all, of its end

OwnEvent = CallStarted | CallReady | ToolOutput | CallFinished


class OwnShell:
    """The user's commands of one run. `stop` may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: Processes | None = None
        self._cancel = threading.Event()
        self._number = 0
        self._ran: list[Ran] = []

    def run(self, command: str) -> Generator[OwnEvent, None, None]:
        """Run a command to its end; the model reads of it with the next prompt."""
        from ds4_agent.tools.process import Processes
        from ds4_agent.tools.registry import bounded

        if self._processes is None:
            self._processes = Processes()
        self._cancel.clear()
        self._number += 1
        call_id, command = f"own_{self._number}", command.strip()
        yield CallStarted(call_id, "bash")
        yield CallReady(call_id, "bash", {"command": command})
        result = yield from streamed(self._work(call_id, command), self._cancel, "ds4-own-shell")
        self._ran.append(Ran(command, bounded(result.content, GIVEN, TAIL)))
        yield CallFinished(call_id, "bash", result.content, result.is_error)

    def take(self) -> tuple[Ran, ...]:
        """What ran since the last prompt; it is given once."""
        taken, self._ran = tuple(self._ran), []
        return taken

    def stop(self) -> None:
        """End the command that runs, if one does."""
        self._cancel.set()

    def close(self) -> None:
        self.stop()
        if self._processes is not None:
            self._processes.close()

    def _work(
        self, call_id: str, command: str
    ) -> Callable[[Callable[[ToolOutput], None]], ToolResult]:
        from ds4_agent.tools.registry import builtin_tools, execute
        from ds4_agent.tools.shell import LONGEST_TIMEOUT_S
        from ds4_agent.tools.types import ToolContext
        from ds4_agent.tools.workspace import Workspace

        def work(emit: Callable[[ToolOutput], None]) -> ToolResult:
            assert self._processes is not None
            workspace = Workspace(self._directory)
            context = ToolContext(
                workspace,
                self._processes,
                self._cancel,
                lambda text: emit(ToolOutput(call_id, text)),
            )
            arguments = {"command": command, "timeout": LONGEST_TIMEOUT_S}
            return execute(builtin_tools(), "bash", arguments, context)

        return work
