"""A Python file of a user's as tools: every function in it that carries `@tool`.

In: a path, or an entry point. Out: its tools, contained (`containment.py`), and whether it printed.
A file that cannot be imported is a PluginError, whatever it did. Writes no bytecode beside the
file, and never imports a module by the file's name: it shadows nothing and nothing shadows it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from ds4_agent.tools.api import as_output
from ds4_agent.tools.containment import (
    ContainedError,
    LeftBehindError,
    Speech,
    contained,
    within,
)
from ds4_agent.tools.plugin_checks import EFFECTS, PluginError, check_tool
from ds4_agent.tools.schema import SchemaError
from ds4_agent.tools.types import Effect, Tool, ToolContext, ToolError, ToolOutput, ToolResult

IMPORT_S = 10.0  # longer than any import that is only an import
FIX_IMPORT = "correct the file"


def load_python(path: Path, source: bytes) -> tuple[list[Tool], str]:
    """(the tools of a file, what it printed meanwhile). Raises PluginError."""
    name = f"ds4_agent_plugin_{path.stem}_{sha256(bytes(path) + source).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = str(path)

    def execute(_: Speech) -> None:
        sys.modules[name] = module  # dataclasses and type hints look their module up there
        exec(compile(source, str(path), "exec"), module.__dict__)

    try:
        _, printed = _imported(execute, str(path))
    except PluginError:
        sys.modules.pop(name, None)
        raise
    return _checked(_own_tools(module), str(path)), printed


def load_entry_point(load: Callable[[], object], where: str) -> tuple[list[Tool], str]:
    """The same of an installed package: what its entry point names is a function with `@tool`, a
    Tool, a module of such functions, or a list of any of these. Raises PluginError."""
    loaded, printed = _imported(lambda _: load(), where)
    tools: list[Tool] = []
    for item in loaded if isinstance(loaded, list | tuple) else [loaded]:
        if isinstance(item, ModuleType):
            tools += _own_tools(item)
        else:
            tool = item if isinstance(item, Tool) else _attached(item)
            tools += [] if tool is None else [tool]
    return _checked(tools, where), printed


def _imported(load: Callable[[Speech], object], file: str) -> tuple[object, str]:
    try:
        return contained(load, file=file, is_over=within(IMPORT_S))
    except LeftBehindError:
        raise PluginError(
            f"it has not finished loading after {IMPORT_S:g} s",
            "do the work inside the function",
        ) from None
    except ContainedError as error:
        raise _problem(error) from error


def _problem(error: ContainedError) -> PluginError:
    cause = error.cause
    if isinstance(cause, SchemaError):
        return PluginError(" ".join(str(cause).split()), FIX_IMPORT)
    if isinstance(cause, SystemExit):
        return PluginError(f"it ends the program while it is loaded, {error}", "remove that")
    if isinstance(cause, ModuleNotFoundError):
        fix = "install it beside ds4-agent, or make the tool an executable with its own environment"
        return PluginError(str(error), fix)
    return PluginError(f"it cannot be loaded, {error}", FIX_IMPORT)


def _own_tools(module: ModuleType) -> list[Tool]:
    """The tools of the functions written in this module, in their order; imported ones are not."""
    functions = (value for value in vars(module).values() if inspect.isfunction(value))
    written = (function for function in functions if function.__module__ == module.__name__)
    return [tool for tool in map(_attached, written) if tool is not None]


def _attached(value: object) -> Tool | None:
    tool = getattr(value, "tool", None) if inspect.isfunction(value) else None
    return tool if isinstance(tool, Tool) else None


def _checked(tools: Iterable[Tool], file: str) -> list[Tool]:
    once = list({id(tool): tool for tool in tools}.values())
    if not once:
        raise PluginError(
            "there is no function with @tool in it",
            "write `from ds4_agent import tool` and @tool above the function",
        )
    for tool in once:
        check_tool(tool)
    return [_contained_tool(tool, file) for tool in once]


def _contained_tool(tool: Tool, file: str) -> Tool:
    """The tool, run where it can harm nobody."""

    def run(context: ToolContext, /, **arguments: Any) -> ToolOutput:
        def work(speech: Speech) -> tuple[ToolOutput, bool]:
            inner = replace(context, on_output=speech.say)
            value: object = tool.run(inner, **arguments)
            return as_output(value), value is None or value == "done"

        try:
            (output, is_silent), printed = contained(
                work, file=file, is_over=context.cancel.is_set, on_output=context.on_output
            )
        except LeftBehindError:
            raise ToolError("interrupted; the tool did not stop and was left to itself") from None
        except ContainedError as error:
            if isinstance(error.cause, ToolError):
                raise ToolError(str(error.cause)) from error
            raise ToolError(f"{tool.name} failed: {error}") from error
        # As with a generator's steps: what was said is the result where nothing is returned.
        return printed if is_silent and printed else _sound(output, tool.name)

    return replace(tool, run=run, classify=_safe_classify(tool))


def _sound(output: ToolOutput, name: str) -> ToolOutput:
    """A result whose parts are what they should be: a ToolResult can be made of anything."""
    if isinstance(output, ToolResult) and not (
        isinstance(output.content, str) and isinstance(output.diff, str)
    ):
        raise ToolError(f"{name} failed: it returned a ToolResult whose content is no text")
    return output


def _safe_classify(tool: Tool) -> Callable[[Mapping[str, Any]], Effect] | None:
    """A `classify` that fails or answers nonsense counts as the strongest effect the tool has."""
    classify = tool.classify
    if classify is None:
        return None

    def safe(arguments: Mapping[str, Any]) -> Effect:
        try:
            effect, _ = contained(lambda _: classify(arguments), file="", is_over=within(1.0))
        except (ContainedError, LeftBehindError):
            return tool.effect
        return effect if effect in EFFECTS else tool.effect

    return safe
