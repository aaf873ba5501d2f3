"""The fixed wording of the V4 prompt format, byte for byte as DeepSeek's encoder writes it: effort
prefixes, the TOOLS block, the response format. No logic beyond filling in.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ds4_agent.engine.dsml.block import BLOCK_CLOSE, BLOCK_OPEN, INVOKE_CLOSE, PARAMETER_CLOSE
from ds4_agent.engine.dsml.segments import DSML, Segment, data, markup, template

__all__ = ["EFFORTS", "effort_prefix", "response_format", "tools_block"]

EFFORTS = ("low", "high", "max")

_HIGH = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n"
)
_MAX = (
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: "
    "exhaustively decompose the problem into its most fundamental components, trace every causal "
    "chain to its root, and resolve the underlying cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles "
    "and are certain that no assumption remains unchecked and no error remains undiscovered.\n\n"
)
_TOOLS_BEFORE = (
    "## Tools\n\n"
    "You have access to a set of tools to help answer the user's question. You can invoke tools by "
    f'writing a "<{DSML}tool_calls>" block like the following:\n\n'
    f"{BLOCK_OPEN}\n"
    f'<{DSML}invoke name="$TOOL_NAME">\n'
    f'<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE'
    f"{PARAMETER_CLOSE}\n"
    "...\n"
    f"{INVOKE_CLOSE}\n"
    f'<{DSML}invoke name="$TOOL_NAME2">\n'
    "...\n"
    f"{INVOKE_CLOSE}\n"
    f"{BLOCK_CLOSE}\n\n"
    'String parameters should be specified as is and set `string="true"`. For all other types '
    "(numbers, booleans, arrays, objects), pass the value in JSON format and set "
    '`string="false"`.\n\n'
    "If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning "
    "inside <think>...</think> BEFORE any tool calls or final response.\n\n"
    "Otherwise, output directly after </think> with tool calls or final response.\n\n"
    "### Available Tool Schemas\n\n"
)
_TOOLS_AFTER = (
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke "
    "tool calls.\n"
)
_RESPONSE_FORMAT = (
    "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"
)


def effort_prefix(effort: str | None) -> list[Segment]:
    """What stands between BOS and the system text in thinking mode (0731; `low` and None: nothing).

    `effort` is one of EFFORTS or None; the caller has checked it.
    """
    return [template({"high": _HIGH, "max": _MAX}[effort])] if effort in ("high", "max") else []


def tools_block(schemas: Sequence[Mapping[str, Any]]) -> list[Segment]:
    """The TOOLS block that follows the system text after a blank line.

    A schema is dumped with its own keys in its own order. Its text is data: the description of a
    foreign tool cannot forge a turn.
    """
    lines = "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)
    return [*markup(_TOOLS_BEFORE), data(lines), *markup(_TOOLS_AFTER)]


def response_format(schema: Any) -> list[Segment]:
    """The block that asks for an answer of a JSON schema."""
    return [template(_RESPONSE_FORMAT), data(json.dumps(schema, ensure_ascii=False))]
