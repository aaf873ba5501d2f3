"""The parser's contract beyond the shared cases: schemas, dialects, streaming, linear time."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.events import AnswerText, ArgumentText, ThinkingText
from ds4_agent.engine.dsml.parse import Parser
from ds4_agent.engine.dsml.segments import EOS, USER, control, data, markup
from ds4_agent.engine.dsml.tokenizer import Tokenizer

SCHEMAS = {
    "f": {
        "name": "f",
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "count": {"type": "integer"},
                "note": {"type": ["string", "null"]},
            },
            "required": ["path"],
        },
    },
    "open": {
        "name": "open",
        "description": "",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": True},
    },
}
UNFLAGGED = '<｜DSML｜parameter name="{}">5</｜DSML｜parameter>\n'
PARAMETER = '<｜DSML｜parameter name="{}" string="{}">{}</｜DSML｜parameter>\n'
NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters='"'), min_size=1
).filter(lambda name: name.isprintable())
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"'), min_size=1)
SPELLED = st.sampled_from(
    [
        "</｜DSML｜parameter>",
        "<｜DSML｜invoke",
        "</",
        "<",
        "｜DSML｜",
        EOS,
        "</think>",
        '">',
        "\n\n",
    ]
)
STRINGS = st.lists(st.one_of(st.text(max_size=20), SPELLED), max_size=5).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner | STRINGS, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3)
    ),
    max_leaves=8,
)
CALLS = st.lists(
    st.builds(ParsedCall, NAMES, st.dictionaries(KEYS, STRINGS | JSON, max_size=4)),
    min_size=1,
    max_size=3,
)


def block(*parameters: str, tool: str = "f") -> str:
    body = "".join(parameters)
    return (
        f'\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="{tool}">\n{body}'
        "</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
    )


@given(calls=CALLS, before=STRINGS)
@settings(deadline=None, max_examples=80)
def test_what_is_encoded_is_what_is_parsed(
    v4: Tokenizer, nano_like: Tokenizer, run_parser: Callable, calls: list, before: str
) -> None:
    for tokenizer in (v4, nano_like):
        ids = tokenizer.encode([data(before), *call_segments(calls)])
        run = run_parser(tokenizer, ids)
        assert run.parsed.error is None
        assert run.parsed.repaired is None
        assert list(run.parsed.calls) == calls
        assert [list(c.arguments) for c in run.parsed.calls] == [list(c.arguments) for c in calls]
        assert run.parsed.content == before.rstrip("\r\n")


@given(text=STRINGS, reasoning=STRINGS)
@settings(deadline=None, max_examples=60)
def test_text_without_control_ids_is_text(
    v4: Tokenizer, nano_like: Tokenizer, run_parser: Callable, text: str, reasoning: str
) -> None:
    for tokenizer in (v4, nano_like):
        ids = tokenizer.encode([data(reasoning), control("</think>"), data(text)])
        parsed = run_parser(tokenizer, ids, thinking=True).parsed
        assert (parsed.reasoning, parsed.content, parsed.error) == (reasoning, text, None)


@pytest.mark.parametrize(
    ("raw", "error", "detail"),
    [
        (block(PARAMETER.format("path", "true", "a"), tool="g"), "unknown_tool", "no tool g"),
        (block(PARAMETER.format("pth", "true", "a")), "unknown_param", "f has no parameter pth"),
        (block(PARAMETER.format("count", "false", "3")), "missing_required_param", "f needs path"),
        (block(PARAMETER.format("path", "yes", "a")), None, None),
        (
            block('<｜DSML｜parameter name="note">x</｜DSML｜parameter>\n'),
            "missing_string_attr",
            "note",
        ),
    ],
)
def test_a_schema_decides(
    v4: Tokenizer, run_parser: Callable, raw: str, error: str | None, detail: str | None
) -> None:
    parsed = run_parser(v4, v4.encode(markup(raw)), schemas=SCHEMAS).parsed
    assert parsed.error == error
    assert detail is None or detail in (parsed.detail or "")
    assert bool(parsed.calls) == (error is None)


@pytest.mark.parametrize(("name", "value"), [("path", "5"), ("count", 5)])
def test_a_missing_string_attribute_is_decided_by_the_schema(
    v4: Tokenizer, run_parser: Callable, name: str, value: object
) -> None:
    tag = UNFLAGGED.format(name)
    other = "" if name == "path" else PARAMETER.format("path", "true", "a")
    parsed = run_parser(v4, v4.encode(markup(block(tag, other))), schemas=SCHEMAS).parsed
    assert parsed.repaired == "missing_string_attr"
    assert parsed.calls[0].arguments[name] == value


def test_an_open_schema_takes_any_parameter(v4: Tokenizer, run_parser: Callable) -> None:
    raw = block(PARAMETER.format("anything", "true", "x"), tool="open")
    parsed = run_parser(v4, v4.encode(markup(raw)), schemas=SCHEMAS).parsed
    assert parsed.calls == (ParsedCall("open", {"anything": "x"}),)


X = PARAMETER.format("a", "true", "x")
HEAD = "\n\n<｜DSML｜tool_calls>\n"
END = "</｜DSML｜tool_calls>"
INVOKE = '<｜DSML｜invoke name="f">\n'
OPEN_VALUE = '<｜DSML｜parameter name="a" string="true">x'
SWAPPED = '<｜DSML｜parameter string="true" name="a">x</｜DSML｜parameter>\n'
CALL = f'<｜DSML｜invoke name="f">\n{X}</｜DSML｜invoke>\n'


@pytest.mark.parametrize(
    ("raw", "repaired"),
    [
        (block(SWAPPED), "swapped_attributes"),
        (block(X).replace("tool_calls", "toolcalls"), "wrapper_variant"),
        (f"\n\n{CALL}", "missing_block_start"),
        (f"\n\n{CALL}{CALL}".rstrip(), "missing_block_start"),
        (f"\n\n{CALL}</｜DSML｜tool_calls>", "missing_block_start"),
        (f"\n\n<｜DSML｜tool_calls>\n{CALL}", "missing_block_end"),
        (f"{HEAD}{INVOKE}{X}{END}", "missing_invoke_end"),
        (HEAD + block(X)[len(HEAD) :].replace("\n<", "\n  <"), "tag_whitespace"),
        (block(X).replace('name="a" ', 'name="a"  '), "tag_whitespace"),
        (block(X.replace("</｜DSML｜parameter>", "</｜DSML｜parameter >")), "wrapper_variant"),
    ],
)
def test_a_dialect_that_means_one_thing_is_read(
    v4: Tokenizer, run_parser: Callable, raw: str, repaired: str
) -> None:
    parsed = run_parser(v4, v4.encode(markup(raw))).parsed
    assert parsed.error is None
    assert parsed.repaired == repaired
    assert parsed.calls[0] == ParsedCall("f", {"a": "x"})


def test_a_self_closing_invoke_is_a_call_without_arguments(
    v4: Tokenizer, run_parser: Callable
) -> None:
    raw = '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="f"/>\n</｜DSML｜tool_calls>'
    parsed = run_parser(v4, v4.encode(markup(raw))).parsed
    assert parsed.calls == (ParsedCall("f", {}),)
    assert parsed.repaired == "self_closing_invoke"


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (block(PARAMETER.format("a", "true", "x") * 2), "duplicate_param"),
        (block(PARAMETER.format("a", "maybe", "x")), "bad_string_attr"),
        (block(PARAMETER.format("a", "false", '1, "admin": true')), "bad_json_value"),
        (block(PARAMETER.format("a", "false", "NaN")), "bad_json_value"),
        (block(PARAMETER.format("a", "false", "-Infinity")), "bad_json_value"),
        (block(PARAMETER.format("a", "false", "1e999")), "bad_json_value"),
        (block(PARAMETER.format("a", "false", "[" * 100_000)), "bad_json_value"),
        (block(X.replace("</｜DSML｜parameter>", "</｜DSML｜param>")), "bad_closing_tag"),
        (block(X.replace("</｜DSML｜parameter>\n", "") + X), "nested_markup_in_value"),
        (block(X + "oops "), "unexpected_text_in_invoke"),
        (
            f"\n\n<｜DSML｜tool_calls>\noops\n{CALL}</｜DSML｜tool_calls>",
            "unexpected_text_in_block",
        ),
        (f"{HEAD}{X}{END}", "parameter_outside_invoke"),
        (HEAD + HEAD[2:] + CALL + END, "unexpected_tag"),
        ("ok\n\n</｜DSML｜tool_calls>", "stray_closer"),
        ("\n\n<｜DSML｜other>", "bad_wrapper"),
        ("\n\n<｜DSML｜tool_calls<｜DSML｜x>", "unclosed_tag"),
        ('\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke id="f">', "bad_invoke_tag"),
        ('\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="">', "bad_tool_name"),
        (block(OPEN_VALUE), "nested_markup_in_value"),
        (HEAD + INVOKE + OPEN_VALUE, "missing_param_end"),
        ("\n\n<｜DSML｜tool_calls>", "empty_block"),
    ],
)
def test_a_defect_rejects_the_turn_and_is_named(
    v4: Tokenizer, run_parser: Callable, raw: str, error: str
) -> None:
    parsed = run_parser(v4, v4.encode(markup(raw))).parsed
    assert parsed.error == error
    assert parsed.calls == ()
    assert parsed.detail
    assert "\n" not in parsed.detail


def test_one_bad_call_rejects_its_good_neighbour(v4: Tokenizer, run_parser: Callable) -> None:
    bad = CALL.replace('string="true">x', 'string="false">x')
    raw = f"\n\n<｜DSML｜tool_calls>\n{CALL}{bad}</｜DSML｜tool_calls>"
    run = run_parser(v4, v4.encode(markup(raw)))
    assert run.parsed.error == "bad_json_value"
    assert run.parsed.calls == ()
    assert run.block_closed  # the sampled ids stay, so decoding still stops at the block's end


def test_a_foreign_turn_marker_ends_the_turn(v4: Tokenizer, run_parser: Callable) -> None:
    run = run_parser(v4, v4.encode([data("Done."), control(USER), data("and now")]))
    assert run.parsed.error == "control_token"
    assert USER in run.parsed.detail
    assert run.parsed.content == "Done."


def test_reasoning_that_never_ends_is_named(v4: Tokenizer, run_parser: Callable) -> None:
    parsed = run_parser(v4, v4.encode_data("hm"), thinking=True).parsed
    assert (parsed.reasoning, parsed.error) == ("hm", "missing_think_end")


def test_an_added_token_of_the_vocabulary_is_text(v4: Tokenizer, run_parser: Callable) -> None:
    """V4's vocabulary has `<dsml:` as an added token; a model writing XML samples it."""
    before, after = block(X).split(">x<")
    segments = [*markup(before + ">"), control("<dsml:"), *markup("a/><" + after)]
    assert run_parser(v4, v4.encode(segments)).parsed.calls[0].arguments == {"a": "<dsml:a/>"}


def test_text_is_told_as_soon_as_it_is_certain(v4: Tokenizer) -> None:
    """Line breaks and a bracket wait: a block may follow. A word does not."""
    parser = Parser(v4, thinking=True)
    assert _feed(parser, v4, "Hm") == "Hm"
    assert _feed(parser, v4, "\n\n") == ""
    assert parser.feed(v4.control("</think>")) == [ThinkingText("\n\n")]
    assert _feed(parser, v4, "Go.") == "Go."
    assert _feed(parser, v4, "\n\n") == ""
    assert _feed(parser, v4, "<") == ""
    assert _feed(parser, v4, "b>") == "\n\n<b>"
    assert _feed(parser, v4, "\n") == ""
    assert [type(e) for e in parser.feed(v4.control(EOS))] == [AnswerText]


def test_a_value_is_told_while_it_is_written(v4: Tokenizer) -> None:
    parser = Parser(v4, thinking=False)
    for token_id in v4.encode(markup(block(X)[: block(X).index("x</")])):
        parser.feed(token_id)
    assert _feed(parser, v4, "one ") == "one "
    assert _feed(parser, v4, "two</") == "two"
    assert _feed(parser, v4, "b>") == "</b>"


@pytest.mark.parametrize("unit", ["<", "\n", "</", "<｜"], ids=repr)
@pytest.mark.parametrize("place", ["value", "answer"])
def test_time_is_linear(v4: Tokenizer, run_parser: Callable, unit: str, place: str) -> None:
    """Ten times the text costs about ten times the CPU time, not a hundred times."""
    costs = []
    for count in (3_000, 30_000):
        value = unit * count
        call = call_segments([ParsedCall("f", {"a": value})])
        ids = v4.encode(call if place == "value" else [data(value + ".")])
        began = time.process_time()
        parsed = run_parser(v4, ids).parsed
        costs.append(time.process_time() - began)
        found = parsed.calls[0].arguments["a"] if place == "value" else parsed.content[:-1]
        assert found == value
    assert costs[1] < 40 * costs[0] + 0.5


def _feed(parser: Parser, tokenizer: Tokenizer, text: str) -> str:
    events = [event for i in tokenizer.encode_data(text) for event in parser.feed(i)]
    assert all(isinstance(event, ThinkingText | AnswerText | ArgumentText) for event in events)
    return "".join(event.text for event in events)
