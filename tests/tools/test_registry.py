"""The tools' names, order and schemas, and that no call can do anything but give a result."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ds4_agent.tools.api import make_tool
from ds4_agent.tools.registry import RESULT_LIMIT, bounded, builtin_tools, execute
from ds4_agent.tools.types import ToolContext, ToolResult


def test_signatures_are_what_the_bundled_model_was_trained_on() -> None:
    assert [tool.signature() for tool in builtin_tools()] == [
        "read(path, start_line?, max_lines?)",
        "write(path, content)",
        "edit(path, old, new, replace_all?, whole_word?)",
        "list(path?, depth?)",
        "search(pattern, path?, glob?, mode?, context?, max_results?)",
        "bash(command, timeout?, background?)",
        "bash_status(job)",
        "bash_stop(job)",
        "git(action, path?, message?, revision?, branch?, staged?, max_count?)",
    ]


def test_schemas_are_json_with_a_sentence_for_everything() -> None:
    for tool in builtin_tools():
        schema = tool.schema()
        assert list(schema) == ["name", "description", "parameters"]
        assert json.loads(json.dumps(schema)) == schema
        assert schema["description"].endswith(".")
        for name, parameter in schema["parameters"]["properties"].items():
            assert parameter.get("description"), f"{tool.name}: {name}"


def test_the_schemas_are_small() -> None:
    # About four characters a token: the whole set stays near 1,500 tokens of the big model.
    assert sum(len(json.dumps(tool.schema())) for tool in builtin_tools()) < 6_500


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("grep", {}, "there is no tool grep; the tools are read, write, edit, list, search, bash, "
                     "bash_status, bash_stop, git"),
        ("read", {}, "read needs the parameter path; it is read(path, start_line?, max_lines?)"),
        ("read", {"path": "a", "lines": 3},
         "read has no parameter lines; it is read(path, start_line?, max_lines?)"),
        ("read", {"path": 3}, "path must be text, not 3"),
        ("read", {"path": "a", "max_lines": "10"}, "max_lines must be a whole number, not '10'"),
        ("read", {"path": "a", "max_lines": True}, "max_lines must be a whole number, not True"),
        ("edit", {"path": "a", "old": "b", "new": "c", "replace_all": "yes"},
         "replace_all must be true or false, not 'yes'"),
        ("search", {"pattern": "a", "mode": "fuzzy"},
         "mode must be one of literal, regex, not fuzzy"),
        ("bash_status", {"job": None}, "job must be a whole number, not None"),
        ("read", ["a"], "the arguments of read must be an object, as in "
                        "read(path, start_line?, max_lines?)"),
    ],
)  # fmt: skip
def test_wrong_calls_say_what_is_expected(context, name, arguments, message) -> None:
    result = execute(builtin_tools(), name, arguments, context)
    assert result == ToolResult(f"Error: {message}", is_error=True)


def test_lists_are_checked_inside(context) -> None:
    def total(numbers: list[int]) -> int:
        """Add numbers."""
        return sum(numbers)

    tool = make_tool(total, "read")
    assert execute([tool], "total", {"numbers": [1, 2]}, context).content == "3"
    wrong = execute([tool], "total", {"numbers": [1, "2"]}, context)
    assert wrong.content == "Error: numbers[1] must be a whole number, not '2'"


def test_results_are_bounded_and_say_so(context) -> None:
    def flood() -> str:
        """Give much."""
        return "é" * 10_000_000

    content = execute([make_tool(flood, "read")], "flood", {}, context).content
    assert len(content.encode()) < RESULT_LIMIT + 200
    assert "\n[… 19868928 bytes left out of a result of 20000000 bytes …]\n" in content
    assert "\ufffd" not in content


def test_small_results_are_not_touched() -> None:
    assert bounded("x" * RESULT_LIMIT) == "x" * RESULT_LIMIT


def test_text_that_cannot_be_encoded_is_mended(context) -> None:
    def odd() -> str:
        """Give a name that is no UTF-8."""
        return "caf\udce9"

    assert execute([make_tool(odd, "read")], "odd", {}, context).content == "caf\ufffd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
QUIET = [tool for tool in builtin_tools() if tool.name not in ("bash", "git", "search")]


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_arguments_make_a_tool_raise(context: ToolContext, data: st.DataObject) -> None:
    tool = data.draw(st.sampled_from(QUIET))
    properties = tool.parameters["properties"]
    arguments = {name: data.draw(JSON) for name in properties if data.draw(st.booleans())}
    result = execute(QUIET, tool.name, arguments, context)
    assert " failed: " not in result.content or not result.is_error
    result.content.encode()
