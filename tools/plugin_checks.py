"""What makes a described tool one that the prompt, the grammar and the approvals can take.

In: a Tool, or the JSON an executable described itself with. Out: nothing, or PluginError with what
is wrong and what to do. Runs nothing of the plugin.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from ds4_agent.tools.schema import EXPECTED
from ds4_agent.tools.types import Effect, Tool

# Lower case, as the permission rules are: `Tool(pattern)` of a user is compared in lower case.
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
EFFECTS = get_args(Effect)
KINDS = frozenset({*EXPECTED, "null"})


class PluginError(Exception):
    """A plugin cannot be used: `what` is wrong, and what to do (`fix`)."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix


def check_tool(tool: Tool) -> None:
    """Raise PluginError unless the tool can be offered to a model."""
    if not isinstance(tool.name, str) or not NAME.fullmatch(tool.name):
        raise PluginError(
            f"the tool name {_shown(tool.name)} cannot be used",
            "use small letters, digits and _, at most 64",
        )
    if not isinstance(tool.description, str) or not tool.description.strip():
        raise PluginError(f"{tool.name} has no description", "say in a sentence what it does")
    if tool.effect not in EFFECTS:
        raise PluginError(
            f"{tool.name} has the effect {_shown(tool.effect)}", f"use {', '.join(EFFECTS)}"
        )
    fault = _parameters_fault(tool.parameters)
    if fault:
        raise PluginError(f"the schema of {tool.name} is wrong: {fault}", "correct the schema")
    try:
        json.dumps(tool.schema(), ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"the schema of {tool.name} cannot be written as JSON ({error})", "correct the schema"
        ) from error


def _parameters_fault(parameters: Any) -> str:
    """What is wrong with the schema of all parameters, "" for nothing."""
    if not isinstance(parameters, Mapping):
        return "parameters must be an object"
    if parameters.get("type") != "object":
        return 'parameters must have "type": "object"'
    properties = parameters.get("properties")
    if not isinstance(properties, Mapping):
        return "parameters must have properties, an object"
    required = parameters.get("required", [])
    if not isinstance(required, list | tuple):
        return "required must be a list"
    for name in required:
        if name not in properties:
            return f"required names {_shown(name)}, which is no property"
    for name, schema in properties.items():
        if not isinstance(name, str) or not PARAMETER.fullmatch(name):
            return f"the parameter name {_shown(name)} cannot be used"
        fault = _schema_fault(schema, name)
        if fault:
            return fault
    return ""


def _schema_fault(schema: Any, where: str) -> str:
    """What would break the check of arguments (`schema.validate`) later, while a call waits."""
    if not isinstance(schema, Mapping):
        return f"{where} must be described by an object"
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [] if kind is None else [kind]
    for one in kinds:
        if not isinstance(one, str) or one not in KINDS:
            return f"{where} has the type {_shown(one)}; there are {', '.join(sorted(KINDS))}"
    if not isinstance(schema.get("enum", []), list | tuple):
        return f"enum of {where} must be a list"
    if not isinstance(schema.get("minimum", 0), int | float):
        return f"minimum of {where} must be a number"
    return _schema_fault(schema["items"], f"{where}[]") if "items" in schema else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
