"""The built-in tools in their fixed order, and the one way to run any tool.

In: a name and arguments as the model wrote them. Out: a ToolResult, always: a tool's fault, wrong
arguments and an unknown name are results the model can read, never an exception.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ds4_agent.tools.schema import validate
from ds4_agent.tools.types import Tool, ToolContext, ToolError, ToolResult

RESULT_LIMIT = 128 * 1024  # bytes of UTF-8 of any one result; what is cut is said
KEPT_TAIL = 16 * 1024


@functools.cache
def builtin_tools() -> tuple[Tool, ...]:
    """read, write, edit, list, search, bash, bash_status, bash_stop, git: always in this order."""
    from ds4_agent.tools import edit, files, git_tool, listing, search, shell

    functions = (
        files.read,
        files.write,
        edit.edit,
        listing.list_directory,
        search.search,
        shell.bash,
        shell.bash_status,
        shell.bash_stop,
        git_tool.git,
    )
    return tuple(attached_tool(function) for function in functions)


@functools.cache
def task_tool() -> Tool:
    """`task`, which comes right after the built-in tools. The bundled model has never seen it: its
    profile is not offered it."""
    from ds4_agent.tools import task

    return attached_tool(task.task)


def attached_tool(function: Any) -> Tool:
    """The Tool that `@tool` attached to a function."""
    made = function.tool
    assert isinstance(made, Tool)
    return made


def execute(
    tools: Iterable[Tool], name: str, arguments: Mapping[str, Any], context: ToolContext
) -> ToolResult:
    """Run one call. Never raises for a tool's fault; KeyboardInterrupt and SystemExit pass."""
    known = {tool.name: tool for tool in tools}
    tool = known.get(name)
    if tool is None:
        return _failed(f"there is no tool {name}; the tools are {', '.join(known)}")
    try:
        validate(name, tool.signature(), tool.parameters, arguments)
        output = tool.run(context, **arguments)
    except ToolError as error:
        return _failed(str(error))
    except Exception as error:  # a plugin's own mistake: the model is told, the agent goes on
        return _failed(f"{name} failed: {type(error).__name__}: {error}")
    result = output if isinstance(output, ToolResult) else ToolResult(output)
    content, diff = bounded(clean(result.content)), bounded(clean(result.diff))
    return replace(result, content=content, diff=diff)


def bounded(text: str, limit: int = RESULT_LIMIT, tail: int = KEPT_TAIL) -> str:
    """`text`, or its beginning and end around one line that says how much was left out."""
    data = text.encode("utf-8")
    if len(data) <= limit:
        return text
    head = data[: limit - tail].decode("utf-8", "ignore")
    end = data[-tail:].decode("utf-8", "ignore")
    left_out = len(data) - (limit - tail) - tail
    return f"{head}\n[… {left_out} bytes left out of a result of {len(data)} bytes …]\n{end}"


def clean(text: str) -> str:
    """Text that can be encoded: lone surrogates (file names that are no UTF-8) become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _failed(message: str) -> ToolResult:
    return ToolResult(bounded(clean(f"Error: {message}")), is_error=True)
