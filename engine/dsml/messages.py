"""A whole conversation of OpenAI-style messages as one prompt, exactly as DeepSeek's own encoder
(`encoding_dsv4.py` of V4-Flash-0731) renders it. In: messages. Out: segments. The agent itself
appends building blocks instead; this is for foreign transcripts, and it is held to the official
bytes also where they are odd.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.errors import PromptError
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
from ds4_agent.engine.dsml.wording import EFFORTS, effort_prefix, response_format, tools_block

__all__ = ["encode_messages"]

Message = Mapping[str, Any]

_TASKS = ("action", "query", "authority", "domain", "title", "read_url")


def encode_messages(
    messages: Sequence[Message],
    *,
    thinking: bool,
    reasoning_effort: str | None = None,
    drop_thinking: bool = True,
    add_bos: bool = True,
) -> list[Segment]:
    """The prompt of a conversation.

    `drop_thinking` removes the reasoning of turns before the last user message, unless any message
    declares tools. Raises PromptError for what the format cannot express.
    """
    if reasoning_effort is not None and reasoning_effort not in EFFORTS:
        raise PromptError(
            f"no reasoning effort {reasoning_effort!r}; there are {', '.join(EFFORTS)}"
        )
    turns = _sorted_results(_merged(messages))
    drops = drop_thinking and not any(turn.message.get("tools") for turn in turns)
    if drops and thinking:
        last = _last_user(turns)
        turns = [t for i, t in enumerate(turns) if i >= last or t.role != "developer"]
    last = _last_user(turns)
    segments = [control(BOS)] if add_bos else []
    segments += effort_prefix(reasoning_effort) if thinking else []
    for index, turn in enumerate(turns):
        thinks = thinking and (not drops or index >= last)
        previous = turns[index - 1] if index else None
        following = turns[index + 1] if index + 1 < len(turns) else None
        segments += _body(turn, thinks, previous)
        if following is None or following.role in ("assistant", "latest_reminder"):
            segments += _transition(turn, thinking, thinks)
    return segments


@dataclass(frozen=True)
class _Block:
    """A piece of a user turn: the user's text, or the result of one call."""

    content: str
    call_id: str | None = None


@dataclass(frozen=True)
class _Turn:
    role: str
    message: Message
    blocks: tuple[_Block, ...] = ()


def _merged(messages: Sequence[Message]) -> list[_Turn]:
    """Tool results become blocks of a user turn; neighbouring results and user texts share one."""
    turns: list[_Turn] = []
    for message in messages:
        role = message.get("role")
        open_turn = turns[-1] if turns and turns[-1].role == "user" else None
        if role == "tool":
            block = _Block(_plain(message.get("content")), str(message.get("tool_call_id") or ""))
        elif role == "user":
            block = _Block(_plain(message.get("content")))
            if open_turn and open_turn.message.get("task") is not None:
                open_turn = None
        elif role in ("system", "developer", "assistant", "latest_reminder"):
            turns.append(_Turn(role, message))
            continue
        else:
            raise PromptError(f"no role {role!r} in a V4 prompt")
        if open_turn:
            turns[-1] = replace(open_turn, blocks=(*open_turn.blocks, block))
        else:
            own = {} if role == "tool" else message
            turns.append(_Turn("user", own, (block,)))
    return turns


def _plain(content: Any) -> str:
    """Content given as a list of parts, as one text."""
    if not isinstance(content, list):
        return content or ""
    return "\n\n".join(
        part.get("text", "") if part.get("type") == "text" else f"[Unsupported {part.get('type')}]"
        for part in content
    )


def _sorted_results(turns: list[_Turn]) -> list[_Turn]:
    """Results of a turn in the order of the calls before it; user texts keep their places."""
    order: dict[str, int] = {}
    done: list[_Turn] = []
    for turn in turns:
        calls = turn.message.get("tool_calls") if turn.role == "assistant" else None
        if calls:
            order = {call["id"]: rank for rank, call in enumerate(calls) if call.get("id")}
        results = [block for block in turn.blocks if block.call_id is not None]
        if len(results) > 1 and order:
            # A result whose call is unknown counts as the first's; sorted() is stable.
            ordered = iter(sorted(results, key=lambda block: order.get(block.call_id or "", 0)))
            blocks = tuple(b if b.call_id is None else next(ordered) for b in turn.blocks)
            done.append(replace(turn, blocks=blocks))
        else:
            done.append(turn)
    return done


def _last_user(turns: Sequence[_Turn]) -> int:
    users = [i for i, turn in enumerate(turns) if turn.role in ("user", "developer")]
    return users[-1] if users else -1


def _body(turn: _Turn, thinks: bool, previous: _Turn | None) -> list[Segment]:
    message = turn.message
    if turn.role == "user":
        return [control(USER), *_joined_blocks(turn.blocks)]
    if turn.role == "latest_reminder":
        # None is spelled out: the official encoder formats it without a default.
        return [control(LATEST_REMINDER), data(str(message.get("content")))]
    if turn.role == "assistant":
        return _assistant(message, thinks, previous)
    content = _plain(message.get("content"))
    if turn.role == "developer" and not content:
        raise PromptError("a developer message needs content")
    before = [control(USER)] if turn.role == "developer" else []
    extras: list[Segment] = []
    if message.get("tools"):
        schemas = [tool["function"] for tool in message["tools"]]
        extras += [template("\n\n"), *tools_block(schemas)]
    if message.get("response_format"):
        extras += [template("\n\n"), *response_format(message["response_format"])]
    return [*before, data(content), *extras]


def _joined_blocks(blocks: Sequence[_Block]) -> list[Segment]:
    parts: list[Segment] = []
    for index, block in enumerate(blocks):
        between = "\n\n" if index else ""
        if block.call_id is None:
            parts += [template(between), data(block.content)]
        else:
            parts += [
                template(f"{between}<tool_result>"),
                data(block.content),
                template("</tool_result>"),
            ]
    return parts


def _assistant(message: Message, thinks: bool, previous: _Turn | None) -> list[Segment]:
    parts: list[Segment] = []
    after_task = previous is not None and previous.message.get("task") is not None
    if thinks and not after_task:
        parts += [data(message.get("reasoning_content") or ""), control(END_THINK)]
    parts.append(data(_plain(message.get("content"))))
    parts += call_segments([_call(call["function"]) for call in message.get("tool_calls") or ()])
    return parts if message.get("wo_eos") else [*parts, control(EOS)]


def _call(function: Mapping[str, Any]) -> ParsedCall:
    """A call of the transcript; arguments that are no JSON text become one argument `arguments`."""
    arguments = function["arguments"]
    try:
        arguments = json.loads(arguments)
    except (TypeError, ValueError):
        arguments = {"arguments": arguments}
    if not isinstance(arguments, Mapping):
        raise PromptError(f"the arguments of {function['name']} are no JSON object")
    return ParsedCall(function["name"], arguments)


def _transition(turn: _Turn, thinking: bool, thinks: bool) -> list[Segment]:
    """What opens the model's turn: the task's token, or the header after a user's turn."""
    task = turn.message.get("task")
    if task is not None:
        if task not in _TASKS:
            raise PromptError(f"no task {task!r}; there are {', '.join(_TASKS)}")
        token = control(f"<｜{task}｜>")
        think = control(THINK if thinking else END_THINK)
        return [control(ASSISTANT), think, token] if task == "action" else [token]
    if turn.role in ("user", "developer"):
        return [control(ASSISTANT), control(THINK if thinks else END_THINK)]
    return []
