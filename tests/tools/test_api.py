"""The decorator of users' tools: schema from hints and docstring, every kind of function runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

import ds4_agent
from ds4_agent.tools.registry import attached_tool, execute
from ds4_agent.tools.schema import SchemaError
from ds4_agent.tools.types import ToolContext, ToolError, ToolResult

tool = ds4_agent.tool


@tool(effect="read")
def todo_count(path: str = ".", marker: str = "TODO") -> str:
    """Count markers below a path.

    path: directory to look in
    marker: the word to count
    """
    return f"{path}: 3 {marker}"


def run(function: Any, context: ToolContext, **arguments: object) -> ToolResult:
    made = attached_tool(function)
    return execute([made], made.name, arguments, context)


def test_the_contracts_example(context) -> None:
    assert attached_tool(todo_count).schema() == {
        "name": "todo_count",
        "description": "Count markers below a path.",
        "parameters": {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "directory to look in"},
                "marker": {"type": "string", "description": "the word to count"},
            },
            "required": [],
        },
    }
    assert attached_tool(todo_count).signature() == "todo_count(path?, marker?)"
    assert attached_tool(todo_count).effect == "read"
    assert todo_count("x") == "x: 3 TODO"  # still a function
    assert run(todo_count, context, marker="XXX").content == ".: 3 XXX"


def test_types_become_schemas() -> None:
    @tool
    def every(
        a: int,
        b: float,
        c: bool,
        d: Path,
        e: Literal["x", "y"],
        f: list[int],
        g: dict[str, int],
        h: Optional[str] = None,  # noqa: UP045
        i: int | None = None,
        j: list = [],  # noqa: B006
    ) -> str:
        """Take every type."""
        return ""

    parameters = attached_tool(every).parameters
    assert parameters["properties"] == {
        "a": {"type": "integer"},
        "b": {"type": "number"},
        "c": {"type": "boolean"},
        "d": {"type": "string"},
        "e": {"type": "string", "enum": ["x", "y"]},
        "f": {"type": "array", "items": {"type": "integer"}},
        "g": {"type": "object"},
        "h": {"type": "string"},
        "i": {"type": "integer"},
        "j": {"type": "array"},
    }
    assert parameters["required"] == list("abcdefg")
    assert attached_tool(every).effect == "execute"


def no_docstring(a: int) -> str:
    return ""


def no_hint(a) -> str:
    """Doc."""


def odd_type(a: complex) -> str:
    """Doc."""


def many(*a: int) -> str:
    """Doc."""


def positional(a: int, /) -> str:
    """Doc."""


def unknown(a: "Nope") -> str:  # noqa: F821, UP037
    """Doc."""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_docstring, "no_docstring needs a docstring"),
        (no_hint, "no_hint: parameter a needs a type hint"),
        (odd_type, "odd_type: parameter a has the type <class 'complex'>"),
        (many, r"many: \*a cannot be described"),
        (positional, "positional: a must not be positional-only"),
        (unknown, "unknown: a type hint cannot be resolved"),
    ],
)
def test_what_cannot_be_described_says_why(function, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        tool(function)


def test_the_context_is_given_and_no_parameter(context) -> None:
    @tool(effect="read", name="where")
    def anything(context: ToolContext, name: str) -> str:
        """Tell where.

        name: a name
         that goes on
        """
        return f"{context.workspace.root.name}/{name}"

    assert attached_tool(anything).signature() == "where(name)"
    note = attached_tool(anything).parameters["properties"]["name"]["description"]
    assert note == "a name that goes on"
    assert run(anything, context, name="x").content == "ws/x"


def test_parameters_may_have_any_name(context) -> None:
    @tool
    def odd(context: str, self: str, arguments: str) -> str:
        """Take names that the machinery uses."""
        return context + self + arguments

    arguments = {"context": "1", "self": "2", "arguments": "3"}
    assert execute([attached_tool(odd)], "odd", arguments, context).content == "123"


def test_a_path_arrives_as_a_path(context) -> None:
    @tool
    def suffix(path: Path, other: Path | None = None) -> str:
        """Tell the suffix."""
        return path.suffix + str(other)

    assert run(suffix, context, path="a/b.py").content == ".pyNone"
    assert run(suffix, context, path="a.py", other="c/d").content == ".pyc/d"


def test_async_functions_run_even_below_a_running_loop(context) -> None:
    @tool
    async def slow(n: int) -> int:
        """Wait a little."""
        await asyncio.sleep(0)
        return n + 1

    async def caller() -> ToolResult:
        return run(slow, context, n=1)

    assert run(slow, context, n=1).content == "2"
    assert asyncio.run(caller()).content == "2"


def test_async_functions_are_cancelled(context) -> None:
    @tool
    async def endless() -> None:
        """Wait for ever."""
        await asyncio.sleep(1000)

    threading.Timer(0.1, context.cancel.set).start()
    assert run(endless, context).content == "Error: interrupted"


def test_generators_report_progress(context) -> None:
    seen: list[str] = []
    context.on_output = seen.append

    @tool
    def steps(n: int) -> Iterator[str]:
        """Count."""
        for i in range(n):
            yield f"step {i}"

    @tool
    def returns() -> Iterator[str]:
        """Count, then tell."""
        yield "working"
        return "result"

    @tool
    async def waits() -> AsyncIterator[str]:
        """Count slowly."""
        yield "a"
        yield "b"

    assert run(steps, context, n=2).content == "step 0\nstep 1"
    assert run(returns, context).content == "result"
    assert run(waits, context).content == "a\nb"
    assert seen == ["step 0\n", "step 1\n", "working\n", "a\n", "b\n"]


def test_generators_are_cancelled_between_steps(context) -> None:
    @tool
    def endless() -> Iterator[int]:
        """Count for ever."""
        number = 0
        while True:
            number += 1
            if number == 3:
                context.cancel.set()
            yield number

    assert run(endless, context).content == "Error: interrupted"


@pytest.mark.parametrize(
    ("value", "text"),
    [("text", "text"), (None, "done"), ({"a": "é"}, '{"a": "é"}'), ([1, 2], "[1, 2]"), (7, "7")],
)
def test_what_is_returned_becomes_text(context, value: object, text: str) -> None:
    @tool
    def give() -> Any:
        """Give."""
        return value

    assert run(give, context).content == text


def test_a_value_that_is_no_json_is_shown(context) -> None:
    @tool
    def give() -> Any:
        """Give."""
        return {1, 2}

    assert run(give, context).content == "{1, 2}"


@pytest.mark.parametrize("kind", ["sync", "async", "generator"])
def test_a_tool_that_raises_is_a_result(context, kind: str) -> None:
    def fail() -> None:
        raise ValueError("no luck")

    @tool
    def sync() -> None:
        """Fail."""
        fail()

    @tool(name="async")
    async def later() -> None:
        """Fail."""
        fail()

    @tool
    def generator() -> Iterator[int]:
        """Fail."""
        yield 1
        fail()

    function = {"sync": sync, "async": later, "generator": generator}[kind]
    result = run(function, context)
    assert result.is_error
    assert result.content == f"Error: {kind} failed: ValueError: no luck"


def test_a_tool_error_is_its_message(context) -> None:
    @tool
    def fail() -> None:
        """Fail."""
        raise ToolError("the thing is not there")

    assert run(fail, context).content == "Error: the thing is not there"
