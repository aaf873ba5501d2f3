"""The decorator that makes a function a tool; exported as `ds4_agent.tool`.

In: a typed, documented function (sync, async, generator or async generator). Out: the same
function, callable as before, with a `Tool` attached as its attribute `tool`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from ds4_agent.tools.schema import context_parameter, function_schema, path_parameters
from ds4_agent.tools.types import Effect, Tool, ToolContext, ToolError, ToolOutput, ToolResult

F = TypeVar("F", bound=Callable[..., Any])
CANCEL_POLL_S = 0.05


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    effect: Effect = ...,
    name: str | None = ...,
    classify: Callable[[Mapping[str, Any]], Effect] | None = ...,
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    effect: Effect = "execute",
    name: str | None = None,
    classify: Callable[[Mapping[str, Any]], Effect] | None = None,
) -> F | Callable[[F], F]:
    """Make a function a tool: the schema comes from its type hints and docstring.

    `effect` is what it does at most: "read", "edit" or "execute" (the default, the one most
    asked about). What a generator yields is progress; what it returns is the result, or all it
    yielded when it returns nothing. Raises SchemaError for a function that cannot be described.
    """

    def attach(target: F) -> F:
        target.tool = make_tool(target, effect, name, classify)  # type: ignore[attr-defined]
        return target

    return attach if function is None else attach(function)


def make_tool(
    function: Callable[..., Any],
    effect: Effect,
    name: str | None = None,
    classify: Callable[[Mapping[str, Any]], Effect] | None = None,
) -> Tool:
    """The Tool of `function`. Raises SchemaError."""
    description, parameters = function_schema(function)
    wants_context = context_parameter(function)
    paths = path_parameters(function)

    @functools.wraps(function)
    def run(context: ToolContext, /, **arguments: Any) -> ToolOutput:
        if wants_context is not None:
            arguments[wants_context] = context
        for path in paths & arguments.keys():
            arguments[path] = Path(arguments[path])
        return as_output(_finish(function(**arguments), context))

    return Tool(
        name=name or function.__name__,
        description=description,
        parameters=parameters,
        effect=effect,
        run=run,
        classify=classify,
    )


def as_output(value: object) -> ToolOutput:
    """What a tool returned as text for the model: text as it is, nothing as `done`, else JSON."""
    if isinstance(value, ToolResult | str):
        return value
    if value is None:
        return "done"
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def _finish(value: object, context: ToolContext) -> object:
    if inspect.isasyncgen(value):
        return _run_async(_follow_async(value, context), context)
    if inspect.isawaitable(value):
        return _run_async(value, context)
    if inspect.isgenerator(value):
        return _follow(value, context)
    return value


def _follow(steps: Generator[Any, Any, Any], context: ToolContext) -> object:
    said: list[str] = []
    try:
        while not context.cancel.is_set():
            try:
                said.append(str(next(steps)))
            except StopIteration as end:
                return "\n".join(said) if end.value is None else end.value
            context.on_output(said[-1] + "\n")
    finally:
        steps.close()
    raise ToolError("interrupted")


async def _follow_async(steps: AsyncGenerator[Any, Any], context: ToolContext) -> object:
    said: list[str] = []
    async for step in steps:
        said.append(str(step))
        context.on_output(said[-1] + "\n")
    return "\n".join(said)


def _run_async(awaitable: Awaitable[object], context: ToolContext) -> object:
    """Run to the end on a loop of its own, in a thread of its own: the caller may have a loop."""
    outcome: list[object] = []
    failure: list[BaseException] = []

    async def watched() -> object:
        task = asyncio.ensure_future(awaitable)
        while not task.done():
            await asyncio.wait([task], timeout=CANCEL_POLL_S)
            if context.cancel.is_set() and not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=1)
                raise ToolError("interrupted")
        return task.result()

    def in_thread() -> None:
        try:
            outcome.append(asyncio.run(watched()))
        except BaseException as error:
            failure.append(error)

    # In the caller's context: that is how a plugin's prints are told from the agent's.
    context_run = contextvars.copy_context().run
    thread = threading.Thread(
        target=context_run, args=(in_thread,), name="ds4-async-tool", daemon=True
    )
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
