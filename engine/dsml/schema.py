"""What a tool's JSON schema says about how its parameters are written in DSML: which exist, which
are required, which values a parameter can take at its top level. Nested schemas are not looked at;
the tool registry validates whole arguments.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["Parameter", "ToolSignature"]

_TYPES = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})


@dataclass(frozen=True)
class Parameter:
    """One parameter. `types` are the JSON types it can have, `values` all its values if finite."""

    name: str
    required: bool
    types: frozenset[str]
    values: tuple[Any, ...] | None

    @property
    def string_flags(self) -> tuple[bool, ...]:
        """The values its `string` attribute can have; two where the schema leaves it open."""
        can_be_string = "string" in self.types
        can_be_other = bool(self.types - {"string"})
        return (True,) * can_be_string + (False,) * can_be_other

    def spelled_values(self) -> Iterator[tuple[bool, str]]:
        """Each of `values` as it is written: its `string` attribute and its text."""
        for value in self.values or ():
            is_string = isinstance(value, str)
            yield is_string, value if is_string else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class ToolSignature:
    """A tool's name and parameters, in the schema's order.

    `is_open`: the schema says that parameters it does not name are welcome.
    """

    name: str
    parameters: tuple[Parameter, ...]
    is_open: bool = False

    @classmethod
    def from_schema(cls, schema: Mapping[str, Any]) -> "ToolSignature":
        """From a tool schema {"name", "description", "parameters"}."""
        parameters = schema.get("parameters") or {}
        required = set(parameters.get("required") or ())
        return cls(
            schema["name"],
            tuple(
                _parameter(name, name in required, definition)
                for name, definition in (parameters.get("properties") or {}).items()
            ),
            is_open=bool(parameters.get("additionalProperties")),
        )

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    def missing(self, given: Iterable[str]) -> list[str]:
        """The required parameters that are not among `given`."""
        there = set(given)
        return [p.name for p in self.parameters if p.required and p.name not in there]


def _parameter(name: str, required: bool, definition: Any) -> Parameter:
    values = _values(definition)
    types = frozenset(map(_type_of, values)) if values else _types(definition)
    if values is None and types <= {"boolean", "null"}:
        values = ((True, False) if "boolean" in types else ()) + (
            (None,) if "null" in types else ()
        )
    return Parameter(name, required, types, values)


def _values(definition: Any) -> tuple[Any, ...] | None:
    """The values of an enum or const; None where the schema has neither."""
    if not isinstance(definition, Mapping):
        return None
    if "const" in definition:
        return (definition["const"],)
    if isinstance(definition.get("enum"), list) and definition["enum"]:
        return tuple(definition["enum"])
    return None


def _types(definition: Any) -> frozenset[str]:
    """The JSON types a schema allows; all of them where it does not say."""
    if not isinstance(definition, Mapping):
        return _TYPES
    stated = definition.get("type")
    types = frozenset([stated] if isinstance(stated, str) else stated or ()) & _TYPES or _TYPES
    if "number" in types:
        types |= {"integer"}
    for union in ("anyOf", "oneOf"):
        branches = definition.get(union)
        if isinstance(branches, list) and branches:
            types &= frozenset[str]().union(*map(_branch_types, branches))
    return types or _TYPES


def _branch_types(branch: Any) -> frozenset[str]:
    values = _values(branch)
    return frozenset(map(_type_of, values)) if values else _types(branch)


def _type_of(value: Any) -> str:
    """The JSON type of a value; an integer is what has no fraction written."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) else "number"
    return "array" if isinstance(value, list) else "object"
