"""JSON schemas of tools: made from a function's type hints and docstring, and checked against.

In: a Python function, or a schema and arguments. Out: a schema, or the arguments with defaults
left out. Wrong arguments raise ToolError naming the parameter and what is expected.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from ds4_agent.tools.types import ToolContext, ToolError

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", Path: "string"}
EXPECTED = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


class SchemaError(TypeError):
    """A function cannot be a tool; the message says which parameter and why."""


def function_schema(function: Callable[..., Any]) -> tuple[str, dict[str, Any]]:
    """(description, parameters) of `function`. Raises SchemaError.

    The first paragraph of the docstring is the description; a line `name: text` describes a
    parameter. A parameter typed ToolContext is no part of the schema.
    """
    name = getattr(function, "__name__", "tool")
    text = inspect.getdoc(function)
    if not text:
        raise SchemaError(f"{name} needs a docstring: it is what the model reads")
    description, notes = _read_docstring(text)
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise SchemaError(f"{name}: a type hint cannot be resolved ({error})") from error
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if hints.get(parameter.name) is ToolContext:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise SchemaError(f"{name}: *{parameter.name} cannot be described to a model")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise SchemaError(f"{name}: {parameter.name} must not be positional-only")
        if parameter.name not in hints:
            raise SchemaError(f"{name}: parameter {parameter.name} needs a type hint")
        schema = _type_schema(hints[parameter.name], f"{name}: parameter {parameter.name}")
        if parameter.name in notes:
            schema["description"] = notes[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        properties[parameter.name] = schema
    return description, {"type": "object", "properties": properties, "required": required}


def context_parameter(function: Callable[..., Any]) -> str | None:
    """The name of the parameter that wants the ToolContext, if there is one."""
    hints = typing.get_type_hints(function)
    return next((n for n, hint in hints.items() if hint is ToolContext and n != "return"), None)


def path_parameters(function: Callable[..., Any]) -> frozenset[str]:
    """The parameters that want a Path where the model gives text."""
    hints = typing.get_type_hints(function)
    return frozenset(n for n, hint in hints.items() if Path in (hint, *get_args(hint)))


def validate(tool: str, signature: str, parameters: Mapping[str, Any], arguments: object) -> None:
    """Raise ToolError unless `arguments` fits `parameters`; never changes a value."""
    if not isinstance(arguments, Mapping):
        raise ToolError(f"the arguments of {tool} must be an object, as in {signature}")
    properties = parameters["properties"]
    for name in arguments:
        if name not in properties:
            raise ToolError(f"{tool} has no parameter {name}; it is {signature}")
    for name in parameters.get("required", ()):
        if name not in arguments:
            raise ToolError(f"{tool} needs the parameter {name}; it is {signature}")
    for name, value in arguments.items():
        _check(value, properties[name], name)


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    first, _, rest = text.partition("\n\n")
    notes: dict[str, str] = {}
    last = ""
    for line in rest.splitlines():
        name, colon, note = line.partition(":")
        if colon and name.isidentifier():
            last = name
            notes[name] = note.strip()
        elif last and line.startswith(" ") and line.strip():
            notes[last] += " " + line.strip()  # an indented line continues the one before
        elif not line.strip():
            last = ""
    return " ".join(first.split()), notes


def _type_schema(hint: Any, where: str) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if origin is Literal:
        kinds = {type(value) for value in args}
        if len(kinds) == 1 and kinds <= set(PLAIN):
            return {"type": PLAIN[kinds.pop()], "enum": list(args)}
    if origin in (Union, types.UnionType):
        rest = [arg for arg in args if arg is not type(None)]
        if len(rest) == 1:
            return _type_schema(rest[0], where)
    if hint is list or origin in (list, Sequence):
        return {"type": "array"} | ({"items": _type_schema(args[0], where)} if args else {})
    if hint is dict or origin in (dict, Mapping):
        return {"type": "object"}
    raise SchemaError(
        f"{where} has the type {hint}; use str, int, float, bool, Path, Literal, list or dict"
    )


def _check(value: object, schema: Mapping[str, Any], name: str) -> None:
    kind = schema.get("type")
    if kind is not None and not _is_kind(value, str(kind)):
        expected = EXPECTED.get(str(kind), str(kind))
        raise ToolError(f"{name} must be {expected}, not {_shown(value)}")
    choices = schema.get("enum")
    if choices is not None and value not in choices:
        raise ToolError(f"{name} must be one of {', '.join(map(str, choices))}, not {value}")
    if "minimum" in schema and isinstance(value, int | float) and value < schema["minimum"]:
        raise ToolError(f"{name} must be at least {schema['minimum']}, not {value}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            _check(item, schema["items"], f"{name}[{index}]")


def _is_kind(value: object, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, Mapping)
        case _:
            return True  # a kind of a foreign schema that we do not judge


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
