"""The way in to an interactive session: checks the terminal, picks the screen, runs it.

In: `RunOptions` and a first prompt. Out: an exit code. Nothing heavy is imported before it is
known that a screen can open.
"""

import os
import sys
from typing import TYPE_CHECKING

from ds4_agent.tui.terminal import (
    end_process_soon,
    is_full_terminal,
    kept_terminal,
    refusal,
)

if TYPE_CHECKING:
    from ds4_agent.agent.build import RunOptions

__all__ = ["run"]

CRASHED = 2


def run(options: "RunOptions", prompt: str = "") -> int:
    """A session on the full screen, or on the plain prompt where the terminal is too simple.

    Returns the exit code. Raises what building the agent raised (UsageError, EngineError).
    """
    reason = refusal(sys.stdin, sys.stdout)
    if reason:
        print(f"ds4-agent: {reason}", file=sys.stderr)
        return 1
    if not is_full_terminal(os.environ, sys.stderr):
        from ds4_agent.tui.plain import run as run_plain

        return run_plain(options, prompt)
    from ds4_agent.tui.screen import AgentApp
    from ds4_agent.tui.session import about, builder

    app = AgentApp(builder(options), about(options), prompt, on_leave=end_process_soon)
    with kept_terminal():
        app.run()
    app.conversation.close()
    if app.load_error is not None:
        raise app.load_error
    code = app.return_code or 0
    return CRASHED if code == 1 else code  # textual's word for an exception in the app
