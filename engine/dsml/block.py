"""The DSML block of tool calls as segments: its tags and a whole block of calls.

In: calls. Out: what a model writes for them, from the blank line before the block to its end,
without EOS. String values are raw text with no escaping of any kind; names are written raw too.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ds4_agent.engine.dsml.errors import PromptError
from ds4_agent.engine.dsml.segments import DSML, Segment, data, markup, template

__all__ = [
    "BLOCK_CLOSE",
    "BLOCK_OPEN",
    "INVOKE_CLOSE",
    "PARAMETER_CLOSE",
    "Call",
    "call_segments",
    "invoke_head",
    "parameter_head",
]

BLOCK_OPEN = f"<{DSML}tool_calls>"
BLOCK_CLOSE = f"</{DSML}tool_calls>"
INVOKE_CLOSE = f"</{DSML}invoke>"
PARAMETER_CLOSE = f"</{DSML}parameter>"


class Call(Protocol):
    """Anything with a name and arguments, e.g. a ParsedCall."""

    @property
    def name(self) -> str: ...

    @property
    def arguments(self) -> Mapping[str, Any]: ...


def call_segments(calls: Iterable[Call]) -> list[Segment]:
    """The block of one turn's calls, with the blank line before it; [] without calls.

    Raises PromptError for an argument that has no JSON (NaN, infinity, an object of Python's).
    """
    invokes = [_invoke(call) for call in calls]
    if not invokes:
        return []
    parts = [template("\n\n"), *markup(BLOCK_OPEN)]
    for invoke in invokes:
        parts += [template("\n"), *invoke]
    return [*parts, template("\n"), *markup(BLOCK_CLOSE)]


def invoke_head(name: str) -> list[Segment]:
    """`<｜DSML｜invoke name="…">`"""
    return [*markup(f'<{DSML}invoke name="'), data(name), template('">')]


def parameter_head(name: str, is_string: bool) -> list[Segment]:
    """`<｜DSML｜parameter name="…" string="true|false">`"""
    flag = "true" if is_string else "false"
    return [*markup(f'<{DSML}parameter name="'), data(name), template(f'" string="{flag}">')]


def _invoke(call: Call) -> list[Segment]:
    parts = [*invoke_head(call.name), template("\n")]
    for name, value in call.arguments.items():
        is_string = isinstance(value, str)
        text = value if is_string else _json(call.name, name, value)
        parts += [*parameter_head(name, is_string), data(text), *markup(PARAMETER_CLOSE)]
        parts.append(template("\n"))
    if not call.arguments:  # DeepSeek's encoder joins no parameters to an empty line
        parts.append(template("\n"))
    return [*parts, *markup(INVOKE_CLOSE)]


def _json(call: str, name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PromptError(f"argument {name} of {call} has no JSON: {error}") from error
