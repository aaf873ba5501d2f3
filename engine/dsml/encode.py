"""The building blocks of a V4 prompt, in the order they stand in it. In: texts, schemas, results,
calls. Out: segments, byte for byte as DeepSeek's encoder writes them. Nothing is trimmed, and a
transcript is never rendered again: blocks are appended to the ids that are already there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.errors import PromptError
from ds4_agent.engine.dsml.messages import encode_messages
from ds4_agent.engine.dsml.segments import (
    ASSISTANT,
    BOS,
    END_THINK,
    EOS,
    LATEST_REMINDER,
    THINK,
    USER,
    Segment,
    control,
    data,
    template,
)
from ds4_agent.engine.dsml.wording import EFFORTS, effort_prefix, tools_block

__all__ = [
    "assistant_header",
    "call_segments",
    "encode_messages",
    "end_of_turn",
    "reminder_segments",
    "system_segments",
    "tool_result_segments",
    "user_segments",
]


def system_segments(
    system_text: str, schemas: Sequence[Mapping[str, Any]], *, effort: str | None = None
) -> list[Segment]:
    """The start of a prompt: BOS, the effort's prefix, the system text, the TOOLS block.

    `effort` is one of low, high, max; None where thinking is off. No TOOLS block without schemas.
    Raises PromptError for another effort.
    """
    if effort is not None and effort not in EFFORTS:
        raise PromptError(f"no reasoning effort {effort!r}; there are {', '.join(EFFORTS)}")
    tools = [template("\n\n"), *tools_block(schemas)] if schemas else []
    return [control(BOS), *effort_prefix(effort), data(system_text), *tools]


def reminder_segments(text: str) -> list[Segment]:
    """The facts of the session (date, directory, …), placed before a user turn."""
    return [control(LATEST_REMINDER), data(text)]


def user_segments(text: str) -> list[Segment]:
    """A user turn."""
    return [control(USER), data(text)]


def tool_result_segments(results: Sequence[str]) -> list[Segment]:
    """The user turn that answers a block of calls, results in the order of the calls.

    `</tool_result>` is ordinary text, so a result could end itself and go on as if the user were
    speaking; its first character is escaped as ds4 does. This departs from DeepSeek's bytes for
    results that hold this literal, and for no others.
    """
    parts = [control(USER)]
    for index, result in enumerate(results):
        before = "\n\n<tool_result>" if index else "<tool_result>"
        safe = result.replace("</tool_result>", "&lt;/tool_result>")
        parts += [template(before), data(safe), template("</tool_result>")]
    return parts


def assistant_header(thinking: bool) -> list[Segment]:
    """What the model's turn begins with; its first sampled id follows."""
    return [control(ASSISTANT), control(THINK if thinking else END_THINK)]


def end_of_turn() -> list[Segment]:
    """EOS, which ends every turn of the model."""
    return [control(EOS)]
