"""The tool `task`: a sub-agent that knows the whole conversation.

In: what it is to do. Out: its answer and its diff. How a sub-agent is made and run is the agent's
business: `ToolContext.start_task` does it, and is None where none may be started.
"""

from __future__ import annotations

from typing import Literal

from ds4_agent.tools.api import tool
from ds4_agent.tools.types import TaskRequest, ToolContext, ToolError, ToolResult

NAME = "task"


# It reads: what the sub-agent does is asked about call by call, as the agent's own calls are.
@tool(effect="read")
def task(
    context: ToolContext,
    prompt: str,
    tools: list[str] | None = None,
    isolate: Literal["worktree"] | None = None,
) -> ToolResult:
    """Have a sub-agent that knows this whole conversation do a part of the work, and get its answer
    and its diff. Several calls in one block run at the same time; each should change other files.

    prompt: what it is to do, and what it is to answer
    tools: names of the only tools it may use (default: all but task)
    isolate: worktree has it work in a copy of the repository; its diff comes back, not applied
    """
    if not prompt.strip():
        raise ToolError("the prompt is empty")
    if context.start_task is None:
        raise ToolError("a sub-agent starts no sub-agents; do this yourself")
    return context.start_task(TaskRequest(prompt, tuple(tools) if tools else None, bool(isolate)))
