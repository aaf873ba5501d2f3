"""An old conversation for a model that has not read it: its texts, calls and results, encoded anew.

In: turns from the event log. Out: segments for the new model's own format, everything of them data,
and the results that are still to be told. What the old model thought is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.replay import STOPPED
from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.encode import assistant_header, tool_result_segments, user_segments
from ds4_agent.engine.dsml.errors import PromptError
from ds4_agent.engine.dsml.segments import END_THINK, EOS, Segment, control, data, template

if TYPE_CHECKING:
    from ds4_agent.sessions.saved import SavedTurn

__all__ = ["AsText", "as_text"]

Block = Mapping[str, Any]


@dataclass(frozen=True)
class AsText:
    """`segments` end with the model's turn; `results` answer its last calls, in the next turn."""

    segments: tuple[Segment, ...] = ()
    results: tuple[str, ...] = ()


def as_text(turns: Sequence[SavedTurn], *, thinking: bool) -> AsText:
    """The conversation of `turns`, the model's turns headed as it is used to."""
    segments: list[Segment] = []
    results: list[str] = []  # of the last calls, not told yet
    spoken: list[Segment] = []
    for turn in turns:
        answers = _answers(turn.lines)
        speech = user_segments(turn.prompt)
        if results:
            speech = [*tool_result_segments(results), template("\n\n"), data(turn.prompt)]
        results, spoken, is_answered = [], [], False
        for line in turn.lines:
            if line.get("type") == "unread":
                results.append(str(line.get("text")))
            elif line.get("type") == "user":  # said while the model worked
                told = [str(block.get("text")) for block in _content(line) if _is(block, "text")]
                spoken += [s for text in told for s in (template("\n\n"), data(text))]
            elif line.get("type") == "assistant":
                if is_answered:
                    speech = [*tool_result_segments(results or [STOPPED]), *spoken]
                    spoken = []
                content = _content(line)
                segments += [*speech, *_assistant(content, thinking)]
                uses = [str(block.get("id")) for block in content if _is(block, "tool_use")]
                results, is_answered = [answers.get(use, STOPPED) for use in uses], True
        if not is_answered:  # the model never got to it
            segments += [*speech, *_assistant((), thinking)]
    return AsText(tuple(segments), tuple(results))


def _assistant(content: Sequence[Block], thinking: bool) -> list[Segment]:
    text = "".join(str(block.get("text")) for block in content if _is(block, "text"))
    calls = [_call(block) for block in content if _is(block, "tool_use")]
    try:
        block = call_segments(calls)
    except PromptError:  # a number that JSON does not know
        block = [data("\n\n" + "\n".join(f"{call.name} {call.arguments}" for call in calls))]
    thought = [control(END_THINK)] if thinking else []
    return [*assistant_header(thinking), *thought, data(text), *block, control(EOS)]


def _call(block: Block) -> ParsedCall:
    arguments = block.get("input")
    return ParsedCall(str(block.get("name")), arguments if isinstance(arguments, Mapping) else {})


def _answers(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What each call was answered."""
    blocks = (block for line in lines if line.get("type") == "user" for block in _content(line))
    return {str(block.get("tool_use_id")): str(block.get("content")) for block in blocks}


def _content(line: Mapping[str, Any]) -> list[Block]:
    message = line.get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, list):
        return []
    return [block for block in content if isinstance(block, Mapping)]


def _is(block: Block, kind: str) -> bool:
    return block.get("type") == kind
