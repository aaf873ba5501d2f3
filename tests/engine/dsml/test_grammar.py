"""Under the grammar no malformed call can be sampled, and every well-formed one can."""

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.encode import end_of_turn
from ds4_agent.engine.dsml.errors import GrammarError
from ds4_agent.engine.dsml.grammar import Forced, Free, Grammar, GrammarState, OneOf
from ds4_agent.engine.dsml.segments import DSML, END_THINK, EOS, THINK, USER, control, data
from ds4_agent.engine.dsml.tokenizer import Tokenizer


def tool(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": "", "parameters": parameters}


STRING, INTEGER, BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
SCHEMAS = {
    schema["name"]: schema
    for schema in [
        tool("bash", ["command"], command=STRING, timeout=INTEGER, background=BOOLEAN),
        tool("bash_status", ["job"], job=INTEGER),
        tool("edit", ["path", "old", "new"], path=STRING, old=STRING, new=STRING, all=BOOLEAN),
        tool("git", ["action"], action={"enum": ["status", "stash", "log", "add"]}, path=STRING),
        tool("jobs", []),
        tool(
            "many",
            ["items", "ratio"],
            items={"type": "array"},
            ratio={"type": "number"},
            context={"anyOf": [STRING, {"type": "null"}]},
            context_back={"type": ["object", "integer"]},
            level={"enum": [1, 2.5, "high", None]},
            anything={},
        ),
    ]
}
TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "\n", "\n\n", "</div>", "</", "<", ">", "=", '"', " x", "/", "｜DSML｜"]),
)
NUMBERS = st.integers(-(10**20), 10**20) | st.sampled_from([0.5, 1e22, 1e-7, -2.25, 0.0])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS,
    lambda inner: (
        st.lists(inner | TEXT, max_size=3) | st.dictionaries(TEXT, inner | TEXT, max_size=3)
    ),
    max_leaves=6,
)
VALUES = {
    "path": TEXT,
    "old": TEXT,
    "new": TEXT,
    "command": TEXT,
    "job": st.integers(),
    "timeout": st.integers(-999, 99_999),
    "background": st.booleans(),
    "all": st.booleans(),
    "action": st.sampled_from(["status", "stash", "log", "add"]),
    "items": st.lists(ANY_JSON | TEXT, max_size=3),
    "ratio": NUMBERS,
    "context": TEXT | st.none(),
    "context_back": st.integers() | st.dictionaries(TEXT, ANY_JSON, max_size=3),
    "level": st.sampled_from([1, 2.5, "high", None]),
    "anything": TEXT | ANY_JSON,
}


@st.composite
def calls(draw: st.DrawFn) -> ParsedCall:
    """A call of a declared tool: required arguments and any others, in any order."""
    schema = SCHEMAS[draw(st.sampled_from(sorted(SCHEMAS)))]["parameters"]
    name = next(n for n, s in SCHEMAS.items() if s["parameters"] is schema)
    others = [key for key in schema["properties"] if key not in schema["required"]]
    chosen = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
    keys = draw(st.permutations([*schema["required"], *chosen]))
    return ParsedCall(name, {key: draw(VALUES[key]) for key in keys})


@pytest.fixture(scope="module")
def grammars(v4: Tokenizer, nano_like: Tokenizer) -> dict[Tokenizer, Grammar]:
    return {tokenizer: Grammar(tokenizer, SCHEMAS) for tokenizer in (v4, nano_like)}


def accept_all(state: GrammarState, ids: list[int]) -> int:
    """Feed ids that the grammar must allow; how many of them were forced."""
    forced = 0
    for token_id in ids:
        constraint = state.constraint()
        if isinstance(constraint, Forced):
            assert constraint.ids[0] == token_id
            forced += 1
        elif isinstance(constraint, OneOf):
            assert token_id in constraint.ids
        else:
            assert token_id not in constraint.banned
        state.accept(token_id)
    return forced


@given(block=st.lists(calls(), min_size=1, max_size=3), before=TEXT, thinking=st.booleans())
@settings(deadline=None, max_examples=100)
def test_the_canonical_ids_of_any_valid_call_are_allowed(
    grammars: dict[Tokenizer, Grammar], block: list[ParsedCall], before: str, thinking: bool
) -> None:
    for tokenizer, grammar in grammars.items():
        reasoning = [data(before), control(END_THINK)] if thinking else []
        segments = [*reasoning, data(before), *call_segments(block), *end_of_turn()]
        accept_all(grammar.start(thinking), tokenizer.encode(segments))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_sampled_parses_into_valid_calls(
    grammars: dict[Tokenizer, Grammar], run_parser: Callable, seed: int
) -> None:
    for tokenizer, grammar in grammars.items():
        rng = random.Random(seed)
        thinking = bool(seed % 2)
        ids = _walk(grammar.start(thinking), tokenizer, rng, thinking)
        assert ids[-1] == tokenizer.control(EOS)
        run = run_parser(tokenizer, ids, thinking=thinking, schemas=SCHEMAS)
        assert run.parsed.error is None, run.parsed.detail
        assert run.block_closed
        assert run.parsed.calls
        assert not run.parsed.in_thinking
        for call in run.parsed.calls:
            _assert_valid(call)


@pytest.mark.parametrize(("tools", "forced"), [(["bash", "edit", "git"], 32), (["bash"], 33)])
def test_the_bash_call_of_the_format_page_is_mostly_forced(
    v4: Tokenizer, tools: list[str], forced: int
) -> None:
    """Of its 42 ids and EOS the model chooses where the block begins, the names, the value and
    what follows it; `">` too, which may share an id with the beginning of a value."""
    ids = v4.encode([*call_segments([ParsedCall("bash", {"command": "ls"})]), *end_of_turn()])
    assert len(ids) == 43
    grammar = Grammar(v4, {name: SCHEMAS[name] for name in tools})
    assert accept_all(grammar.start(False), ids) == forced


def test_a_forced_run_goes_on_to_the_next_choice(v4: Tokenizer) -> None:
    state = Grammar(v4, {"bash": SCHEMAS["bash"]}).start(False)
    accept_all(state, [*v4.encode_data("\n\n<"), v4.control(DSML)])
    forced = state.constraint()
    assert isinstance(forced, Forced)
    text = 'tool_calls>\n<｜DSML｜invoke name="bash">\n<｜DSML｜parameter name="'
    assert v4.decode(forced.ids) == text
    accept_all(state, list(forced.ids))
    assert isinstance(state.constraint(), OneOf)


def test_after_the_block_only_eos_may_come(tokenizer: Tokenizer) -> None:
    state = Grammar(tokenizer, SCHEMAS).start(False)
    ids = tokenizer.encode(call_segments([ParsedCall("jobs", {})]))
    accept_all(state, ids)
    assert state.constraint() == Forced((tokenizer.control(EOS),))
    accept_all(state, [tokenizer.control(EOS)])
    assert state.constraint() == Forced((tokenizer.control(EOS),))


def test_outside_a_call_only_misplaced_control_ids_are_banned(tokenizer: Tokenizer) -> None:
    dsml, eos = tokenizer.control(DSML), tokenizer.control(EOS)
    end_think = tokenizer.control(END_THINK)
    state = Grammar(tokenizer, SCHEMAS).start(True)
    assert state.constraint() == Free(tokenizer.control_ids - {end_think})
    accept_all(state, tokenizer.encode_data("hm <"))
    assert dsml in state.constraint().banned  # no call inside the reasoning
    accept_all(state, [end_think])
    assert state.constraint() == Free(tokenizer.control_ids - {eos})
    accept_all(state, tokenizer.encode_data("a <"))
    assert state.constraint() == Free(tokenizer.control_ids - {eos, dsml})
    accept_all(state, tokenizer.encode_data("b"))
    assert dsml in state.constraint().banned


def test_without_tools_no_call_can_begin(tokenizer: Tokenizer) -> None:
    state = Grammar(tokenizer, {}).start(False)
    accept_all(state, tokenizer.encode_data("<"))
    assert tokenizer.control(DSML) in state.constraint().banned


def test_required_parameters_come_before_the_end_of_the_call(tokenizer: Tokenizer) -> None:
    state = Grammar(tokenizer, SCHEMAS).start(False)
    begun = tokenizer.encode(call_segments([ParsedCall("edit", {"path": "a", "old": "b"})]))
    controls = [at for at, i in enumerate(begun) if i == tokenizer.control(DSML)]
    accept_all(state, begun[: controls[5] + 1])  # up to `</｜DSML｜` of the second parameter
    forced = state.constraint()
    assert isinstance(forced, Forced)
    assert tokenizer.decode(forced.ids).startswith("parameter>\n<｜DSML｜parameter name=")


def test_a_json_value_must_be_whole_before_its_tag_can_close(tokenizer: Tokenizer) -> None:
    """`</` inside a JSON string closes nothing; after the value only the closing id may come."""
    dsml = tokenizer.control(DSML)
    state = Grammar(tokenizer, SCHEMAS).start(False)
    ids = tokenizer.encode(call_segments([ParsedCall("many", {"items": ["a</b"], "ratio": 1})]))
    third = [at for at, i in enumerate(ids) if i == dsml][2]  # the head of `items`
    fourth = ids.index(dsml, third + 1)
    accept_all(state, ids[: third + 1])
    for token_id in ids[third + 1 : fourth]:
        constraint = state.constraint()
        assert not isinstance(constraint, Free) or dsml in constraint.banned
        assert not isinstance(constraint, OneOf) or dsml not in constraint.ids
        state.accept(token_id)
    assert state.constraint() == Forced((dsml,))


@pytest.mark.parametrize("name", ["a b", "", 'a"b', "a\nb"])
def test_a_tool_name_that_a_call_cannot_carry_is_refused(v4: Tokenizer, name: str) -> None:
    with pytest.raises(GrammarError, match="tool name"):
        Grammar(v4, {name: tool(name, [])})


def test_a_parameter_name_that_a_call_cannot_carry_is_refused(v4: Tokenizer) -> None:
    with pytest.raises(GrammarError, match="parameter name"):
        Grammar(v4, {"f": tool("f", [], **{'a"b': STRING})})


def test_an_id_that_is_not_allowed_is_an_error_and_changes_nothing(tokenizer: Tokenizer) -> None:
    state = Grammar(tokenizer, SCHEMAS).start(False)
    for misplaced in (THINK, USER, END_THINK, DSML):
        with pytest.raises(GrammarError):
            state.accept(tokenizer.control(misplaced))
    accept_all(state, [*tokenizer.encode_data("<"), tokenizer.control(DSML)])
    with pytest.raises(GrammarError):
        state.accept(tokenizer.control(EOS))
    assert isinstance(state.constraint(), Forced)


def test_a_constraint_costs_little(v4: Tokenizer) -> None:
    """Asked of every id of a call, twice: the second time nothing is compiled any more."""
    grammar = Grammar(v4, SCHEMAS)
    value = {"items": [{"a": [1, "b"]}] * 50, "ratio": 2}
    ids = v4.encode([*call_segments([ParsedCall("many", value)]), *end_of_turn()])
    accept_all(grammar.start(False), ids)
    state = grammar.start(False)
    began = time.process_time()
    for token_id in ids:
        state.constraint()
        state.accept(token_id)
    assert (time.process_time() - began) / len(ids) < 100e-6


def test_the_same_place_answers_with_the_same_set(v4: Tokenizer) -> None:
    """A sampler keeps masks by the identity of the set."""
    grammar = Grammar(v4, SCHEMAS)
    one, other = grammar.start(False), grammar.start(False)
    for token_id in v4.encode(call_segments([ParsedCall("bash_status", {"job": 12})])):
        assert one.constraint() is other.constraint()
        one.accept(token_id)
        other.accept(token_id)


def _walk(
    state: GrammarState, tokenizer: Tokenizer, rng: random.Random, thinking: bool
) -> list[int]:
    """Ids drawn evenly from what is allowed, with one call block; what could go on for ever is
    brought to an end after a while."""
    dsml, eos = tokenizer.control(DSML), tokenizer.control(EOS)
    closing = [tokenizer.encode_data(text)[0] for text in ["</", "<", "/", "]", "}", '"', "0", ":"]]
    ending_free = [*tokenizer.encode_data("</"), *tokenizer.encode_data('"')]
    ids = rng.choices(range(tokenizer.vocab_size), k=5) if rng.random() < 0.5 else []
    ids = [i for i in ids if i not in tokenizer.control_ids]
    ids += [tokenizer.control(END_THINK)] if thinking else []
    ids += [*tokenizer.encode_data("\n\n<"), dsml]
    for token_id in ids:
        state.accept(token_id)
    since_tag = 0
    while ids[-1] != eos:
        assert len(ids) < 20_000
        since_tag = 0 if ids[-1] == dsml else since_tag + 1
        constraint = state.constraint()
        if isinstance(constraint, Forced):
            drawn = constraint.ids
        elif isinstance(constraint, OneOf):
            ends = [i for i in closing if i in constraint.ids] if since_tag > 25 else []
            drawn = (ends[0] if ends else rng.choice(sorted(constraint.ids)),)
        elif dsml not in constraint.banned:
            drawn = (dsml,)
        else:
            some = ending_free if since_tag > 25 else rng.choices(range(tokenizer.vocab_size), k=60)
            drawn = (rng.choice([i for i in some if i not in constraint.banned]),)
        for token_id in drawn:
            state.accept(token_id)
        ids.extend(drawn)
    return ids


def _assert_valid(call: ParsedCall) -> None:
    schema = SCHEMAS[call.name]["parameters"]
    assert set(schema["required"]) <= set(call.arguments) <= set(schema["properties"])
    kinds = {"string": str, "integer": int, "number": int | float, "boolean": bool}
    kinds |= {"array": list, "object": dict, "null": type(None)}
    for name, value in call.arguments.items():
        definition = schema["properties"][name]
        if "enum" in definition:
            assert value in definition["enum"]
            continue
        branches = definition.get("anyOf", [definition])
        types = [t for b in branches for t in _as_list(b.get("type", list(kinds)))]
        assert any(isinstance(value, kinds[t]) for t in types)
        assert "boolean" in types or not isinstance(value, bool)


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value
