"""Held against DeepSeek's own renderer and stream parser, `deepseek-recipe` (installed in CI).

Where the two are known to differ from DeepSeek's model-side encoder, the conversations here stay
in what they share: an explicit effort, call ids in ascending order, one system message, calls with
arguments, no exponents.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.encode import encode_messages, end_of_turn
from ds4_agent.engine.dsml.parse import Parser
from ds4_agent.engine.dsml.segments import END_THINK, control, data, spell
from ds4_agent.engine.dsml.tokenizer import Tokenizer

pytestmark = pytest.mark.oracle
recipe = pytest.importorskip("deepseek_recipe")

TEXT = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(["<｜User｜>", "</think>", "｜DSML｜", "\n\n", "    return x\n", "</"]),
    ),
    max_size=4,
).map("".join)
NAMES = st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15),
    lambda inner: (
        st.lists(inner | TEXT, max_size=3) | st.dictionaries(NAMES, inner | TEXT, max_size=3)
    ),
    max_leaves=5,
)
CALLS = st.builds(ParsedCall, NAMES, st.dictionaries(NAMES, TEXT | JSON, min_size=1, max_size=4))
# Three keys in this order: what their renderer writes of a tool.
SCHEMAS = st.builds(
    lambda name, text: {"name": name, "description": text, "parameters": {"type": "object"}},
    NAMES,
    TEXT,
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """System with or without tools, then user turns answered with text, calls and results."""
    system: dict[str, Any] = {"role": "system", "content": draw(TEXT)}
    schemas = draw(st.lists(SCHEMAS, max_size=3))
    if schemas:
        system["tools"] = [{"type": "function", "function": schema} for schema in schemas]
    messages = [system]
    for _ in range(draw(st.integers(0, 2))):
        messages.append({"role": "user", "content": draw(TEXT)})
        if schemas and draw(st.booleans()):
            calls = draw(st.lists(CALLS, min_size=1, max_size=3))
            messages.append(_assistant(draw(TEXT), draw(TEXT), calls))
            for index in range(len(calls)):
                result = {"role": "tool", "tool_call_id": f"call_{index:02}", "content": draw(TEXT)}
                messages.append(result)
        messages.append(_assistant(draw(TEXT), draw(TEXT), []))
    messages.append({"role": "user", "content": draw(TEXT)})
    return messages


def _assistant(content: str, reasoning: str, calls: list[ParsedCall]) -> dict[str, Any]:
    functions = [
        {"name": call.name, "arguments": json.dumps(dict(call.arguments))} for call in calls
    ]
    return {
        "role": "assistant",
        "content": content,
        "reasoning_content": reasoning,
        "tool_calls": [
            {"id": f"call_{i:02}", "type": "function", "function": f}
            for i, f in enumerate(functions)
        ],
    }


@pytest.fixture(scope="module")
def their_tokenizer(v4_file: Path) -> Any:
    return recipe.Tokenizer.from_file(str(v4_file))


@pytest.fixture(scope="module")
def renderer(their_tokenizer: Any) -> Any:
    return recipe.DeepseekV4Encoding().with_tokenizer(their_tokenizer)


@given(
    messages=conversations(),
    thinking=st.booleans(),
    effort=st.sampled_from(["low", "high", "max"]),
)
@settings(deadline=None, max_examples=40)
def test_prompts_have_the_same_text_and_ids(
    v4: Tokenizer, renderer: Any, messages: list[dict], thinking: bool, effort: str
) -> None:
    segments = encode_messages(messages, thinking=thinking, reasoning_effort=effort)
    tools = messages[0].get("tools")
    theirs = recipe.Conversation(
        [_their_message(message, thinking) for message in messages],
        thinking_mode=thinking,
        tools=[recipe.ToolDefinition(**tool["function"]) for tool in tools] if tools else None,
        reasoning_effort=effort,
    )
    assert spell(segments) == renderer.render_conversation(theirs).prompt
    assert v4.encode(segments) == renderer.encode(theirs)


def _their_message(message: dict[str, Any], thinking: bool) -> Any:
    content = message["content"]
    if message["role"] == "tool":
        return recipe.ToolMessage(content, message["tool_call_id"])
    if message["role"] != "assistant":
        kinds = {"system": recipe.SystemMessage, "user": recipe.UserMessage}
        return kinds[message["role"]](content)
    calls = [
        recipe.ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message["tool_calls"]
    ]
    # With tools they write the reasoning of a history back even where thinking is off.
    reasoning = message["reasoning_content"] if thinking else None
    return recipe.AssistantMessage(content, reasoning, calls or None)


@given(reasoning=TEXT, content=TEXT, calls=st.lists(CALLS, max_size=3))
# Making their processor takes 0.1 s, hence few examples and no shrinking.
@settings(deadline=None, max_examples=20, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_turns_are_parsed_into_the_same_parts(
    v4: Tokenizer, their_tokenizer: Any, reasoning: str, content: str, calls: list[ParsedCall]
) -> None:
    """Both read the same ids; recipe strips line breaks around texts, ours keeps every byte."""
    ids = v4.encode(
        [data(reasoning), control(END_THINK), data(content), *call_segments(calls), *end_of_turn()]
    )
    parser = Parser(v4, thinking=True)
    for token_id in ids:
        parser.feed(token_id)
    ours = parser.finish("stop")
    theirs = _their_blocks(their_tokenizer, ids[:-1])
    said = {"thinking": ours.reasoning, "text": ours.content}
    blocks = [{"type": kind, kind: text.strip("\n")} for kind, text in said.items()]
    blocks += [{"type": "tool_use", "name": c.name, "input": dict(c.arguments)} for c in ours.calls]
    silence = {"type": "text", "text": ""}
    assert [b for b in blocks if b != silence] == [b for b in theirs if b != silence]


def _their_blocks(tokenizer: Any, ids: list[int]) -> list[dict[str, Any]]:
    """The content blocks of their answer, without what they make up (ids, signature)."""
    options = recipe.ParsingOptions(
        thinking_initial_stage=recipe.ThinkingInitialStage.ReasoningStart
    )
    generator = recipe.MessagesChunkGenerator("id", "model", True)
    processor = recipe.StreamProcessor(generator, options, tokenizer)
    response = recipe.MessagesResponse("id", "model", 0, 0, 0)
    stop = recipe.InferenceChunk.finish(recipe.InferenceFinishReason.Stop)
    for chunk in (recipe.InferenceChunk.tokens(ids), stop):
        for event in processor.push(chunk):
            response.accumulate(event)
    for event in processor.finish():
        response.accumulate(event)
    made_up = ("id", "signature")
    blocks = json.loads(response.to_json())["content"]
    return [
        {k: v.strip("\n") if k == b["type"] else v for k, v in b.items() if k not in made_up}
        for b in blocks
    ]
