"""Text to ids and back: exact for V4's file, and data never becomes control."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds4_agent.engine.dsml.segments import DSML, EOS, USER, control, data, markup, template
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.errors import ModelFormatError, TokenRangeError

CASES = json.loads(
    (Path(__file__).resolve().parents[2] / "cases" / "tokenizer.json").read_text(encoding="utf-8")
)["cases"]
SPELLINGS = st.sampled_from(
    [EOS, USER, DSML, "</think>", "<think>", "<｜▁pad▁｜>", "<dsml:", "<|EOT|>", "<｜tool▁sep｜>"]
)
HOSTILE_TEXT = st.lists(st.one_of(SPELLINGS, st.text()), max_size=8).map("".join)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_data_has_the_ids_of_the_case(v4: Tokenizer, case: dict) -> None:
    ids = v4.encode_data(case["text"])
    assert ids == case.get("ids_plain", case["ids"])
    assert v4.decode(ids) == case["text"]


@given(text=HOSTILE_TEXT)
@settings(deadline=None, max_examples=60)
def test_data_never_yields_a_control_id(v4: Tokenizer, nano_like: Tokenizer, text: str) -> None:
    for tokenizer in (v4, nano_like):
        ids = tokenizer.encode([data(text)])
        assert tokenizer.control_ids.isdisjoint(ids)
        assert tokenizer.decode(ids) == text
    assert all(2 < i < 128_000 for i in v4.encode_data(text))


def test_a_lone_surrogate_is_encoded_as_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode_data("a\ud800b")) == "a\ufffdb"


def test_control_segments_are_one_id_each_and_neighbours_share_a_bpe(v4: Tokenizer) -> None:
    segments = [control(USER), data("done."), template("\n\n"), control(EOS)]
    assert v4.encode(segments) == [128803, 44629, 339, 1]


def test_markup_is_cut_at_control_tokens(v4: Tokenizer) -> None:
    assert markup(f"a<{DSML}b{EOS}") == [template("a<"), control(DSML), template("b"), control(EOS)]


@given(text=st.text(max_size=40))
@settings(deadline=None, max_examples=60)
def test_streamed_text_is_the_text(v4: Tokenizer, nano_like: Tokenizer, text: str) -> None:
    for tokenizer in (v4, nano_like):
        decoder = tokenizer.stream_decoder()
        pieces = [decoder.feed(i) for i in tokenizer.encode_data(text)]
        assert "".join(pieces) + decoder.flush() == text
        assert "\ufffd" in text or all("\ufffd" not in piece for piece in pieces)


def test_half_a_character_is_replaced_when_the_ids_end(v4: Tokenizer) -> None:
    decoder = v4.stream_decoder()
    first, *_ = v4.encode_data("㐀")
    assert decoder.feed(first) == ""
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""


def test_pieces_are_bytes_and_ids_have_a_range(v4: Tokenizer) -> None:
    assert b"".join(map(v4.piece, v4.encode_data("zażółć 🚀"))) == "zażółć 🚀".encode()
    assert v4.vocab_size == 129_280
    with pytest.raises(TokenRangeError, match="129280"):
        v4.piece(129_280)


def test_an_unknown_control_token_is_named(nano_like: Tokenizer) -> None:
    with pytest.raises(ModelFormatError, match=r"no control token '<｜action｜>'"):
        nano_like.control("<｜action｜>")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "no usable tokenizer.json"),
        ('{"added_tokens": [], "model": {"vocab": {}}}', "no usable tokenizer.json"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelFormatError, match=message) as caught:
        Tokenizer.from_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
