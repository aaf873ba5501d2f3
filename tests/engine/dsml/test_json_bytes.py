"""The byte automaton of JSON: whatever it lets through is JSON of its type, and all of it."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds4_agent.engine.dsml.constraints import Free, OneOf
from ds4_agent.engine.dsml.json_bytes import CLOSED, advance, start, step
from ds4_agent.engine.dsml.json_mask import JsonMasks
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.dsml.values import json_value

NUMBERS = st.integers() | st.floats(-1e290, 1e290).map(lambda x: x if abs(x) > 1e-290 else 0.5)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS,
    lambda inner: (
        st.lists(inner | st.text(), max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)
TYPES = {"integer": [5, -3, 0], "number": [1.5], "boolean": [True], "null": [None]}
TYPES |= {"array": [[], [1]], "object": [{}, {"a": 1}]}


def accepted(text: str, types: set[str]) -> bool:
    return advance(start(types), text.encode()) == CLOSED


@given(value=JSON, indent=st.none() | st.integers(0, 3), ascii_only=st.booleans())
@settings(deadline=None, max_examples=150)
def test_json_is_accepted(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert accepted(text + "</", set(TYPES))


@pytest.mark.parametrize("allowed", TYPES)
def test_only_values_of_the_type_are_accepted(allowed: str) -> None:
    types = {"number", "integer"} if allowed == "number" else {allowed}
    for kind, values in TYPES.items():
        for value in values:
            assert accepted(json.dumps(value) + "</", types) == (kind in types)


@pytest.mark.parametrize(
    "text",
    [
        *("", "01", "-", "1.", ".5", "1e", "+1", "NaN", "Infinity", "tru", "'a'", '"a"'),
        *("[1,]", "[,1]", "[1 2]", "[]]", "1 1", "1, 2", "1</", '["a]', '["\\x"]', '["\\u12g4"]'),
        *('{"a"}', '{"a":}', '{"a":1,}', "{1:2}", '["\n"]', "[" * 80),
        *("9" * 20 + "e290", "1" * 17 + ".5", "1e300"),
    ],
)
def test_what_is_no_value_is_refused(text: str) -> None:
    assert not accepted(text + "</", set(TYPES))


@pytest.mark.parametrize("seed", range(300))
def test_whatever_bytes_are_let_through_are_json(seed: int) -> None:
    """A walk that takes any byte that fits, and closes what is open when it has gone on enough."""
    rng = random.Random(seed)
    state, text = start(TYPES), b""
    while state != CLOSED:
        fitting = {byte: s for byte in range(256) if (s := step(state, byte)) is not None}
        ending = [byte for byte in b'<"]}/:0e' if byte in fitting]
        byte = rng.choice(ending if len(text) > 30 and ending else sorted(fitting))
        state, text = fitting[byte], text + bytes((byte,))
    json_value(text.removesuffix(b"</").decode("utf-8", "replace"))


def test_masks_are_what_the_automaton_says_of_every_id(tokenizer: Tokenizer) -> None:
    masks = JsonMasks(tokenizer.vocabulary)
    for text in ["", '["', '[{"a": 12']:
        state = advance(start({"array", "object", "number", "integer"}), text.encode())
        assert state is not None
        constraint = masks.constraint(state)
        for piece, token_id in tokenizer.vocabulary:
            fits = advance(state, piece) is not None
            if isinstance(constraint, Free):
                assert (token_id not in constraint.banned) == fits
            else:
                assert isinstance(constraint, OneOf)
                assert (token_id in constraint.ids) == fits
