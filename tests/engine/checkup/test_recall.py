"""What stands far back is recalled, or it is told that it is not."""

from dataclasses import replace
from itertools import islice

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.checkup import recall
from ds4_agent.engine.checkup.likely import likely
from ds4_agent.engine.checkup.recall import check_recall
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.errors import Cancelled, EngineError
from ds4_agent.engine.open import NANO
from ds4_agent.engine.weights.checkpoint import load_model

TOKENIZER = Tokenizer.from_file(NANO / "tokenizer.json")


@pytest.fixture(scope="module")
def nano():
    return load_model(NANO)


@pytest.fixture(scope="module")
def random(tiny):
    return load_model(tiny)


@pytest.mark.nano
def test_nano_copies_within_its_window(nano):
    finding = check_recall(nano, TOKENIZER, is_nano=True)

    assert finding.verdict == "passed"
    assert finding.figures["gain"] > recall.NANO_GAIN
    assert nano.config.sliding_window // 4 < finding.figures["back"] < nano.config.sliding_window


def test_a_random_model_copies_nothing(random):
    finding = check_recall(random, TOKENIZER, is_nano=True)

    assert finding.verdict == "failed"


def test_a_long_text_is_asked_about_at_its_end(random):
    """The text takes what it may, the code stands nine tenths back, and a random model fails."""
    finding = check_recall(random, TOKENIZER, is_nano=False, tokens=1500)

    assert finding.verdict == "failed"
    assert 1300 < finding.figures["tokens"] + finding.figures["asked"] <= 1500
    assert 0.8 < finding.figures["back"] / finding.figures["tokens"] < 0.95
    assert f"{finding.figures['back']:,} tokens back in" in finding.said


def test_the_log_repeats_no_line_and_holds_nothing_of_the_code():
    lines = list(islice(recall._log(), 5000))

    assert len(set(lines)) == len(lines)
    assert not [line for line in lines if any(part in line for part in recall.CODE.split("-")[:2])]


def test_it_stops_between_chunks(random):
    def stop():
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        check_recall(random, TOKENIZER, is_nano=False, tokens=1500, stop=stop)


def test_likely_is_what_the_logits_say(random):
    beginning, continuation = [5, 9, 11], [7, 30, 8]

    said = likely(random, beginning, continuation)

    logits, _ = random.logits_all([*beginning, *continuation], random.init_state())
    log_p = np.array(
        mx.array(np.array(logits)) - mx.logsumexp(mx.array(np.array(logits)), -1, True)
    )
    expected = [log_p[2 + i, token] for i, token in enumerate(continuation)]
    assert said.log_p == pytest.approx(np.mean(expected), abs=1e-4)
    assert said.same == sum(log_p[2 + i].argmax() == token for i, token in enumerate(continuation))


def test_what_is_no_number_is_an_error(random):
    spoiled = random.changed(lambda weights: replace(weights, norm=weights.norm * mx.nan))

    with pytest.raises(EngineError, match="not all numbers"):
        likely(spoiled, [5, 9], [7])
