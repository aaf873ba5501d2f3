"""Whatever is guessed, the tokens are those of a context that guesses nothing: at any temperature,
under a grammar, cut off anywhere. Only the number of passes differs."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from ds4_agent.engine.api import Sampling, StoreOptions, Token
from ds4_agent.engine.dsml.constraints import Forced, Free, OneOf
from ds4_agent.engine.errors import Cancelled, EngineError
from ds4_agent.engine.local import ModelEngine
from ds4_agent.engine.speculative.lookup import Lookup

EOS = 1
GREEDY = Sampling(temperature=0.0)
SAMPLINGS = (
    GREEDY,
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=0.7, top_p=0.8, seed=2),
    Sampling(temperature=1.3, min_p=0.2, seed=3),
)


class Rules:
    """A grammar by place: `at[n]` constrains the n-th id; elsewhere anything but the end."""

    def __init__(self, at=None, place=0):
        self.at, self.place = at or {}, place

    def constraint(self):
        return self.at.get(self.place, Free(frozenset({EOS})))

    def accept(self, token_id):
        self.place += 1

    def copy(self):
        return Rules(self.at, self.place)


def decode(context, count, sampling=GREEDY, rules=None, cancel=None):
    tokens = context.sample(
        sampling=sampling, grammar=rules or Rules(), max_tokens=count, cancel=cancel
    )
    return list(tokens)


def ids(tokens):
    return [token.id for token in tokens]


def begun(context, prompt):
    context.extend(prompt)
    return context


@pytest.fixture
def plain(guessing, prompt, runtime):
    """`plain(count, sampling, rules)`: the ids without a guess, behind `prompt(90)`."""

    def decoded(count=60, sampling=GREEDY, rules=None):
        context = begun(guessing(runtime=runtime), prompt(90))
        return ids(decode(context, count, sampling, rules))

    return decoded


# The same tokens


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    "right",
    [lambda k: True, lambda k: False, lambda k: k % 3 != 2, lambda k: k % 7 != 0],
    ids=["all right", "all wrong", "two of three", "six of seven"],
)
def test_the_tokens_are_those_without_guesses(
    guessing, known, prompt, runtime, plain, sampling, right
):
    expected = plain(60, sampling)
    context = begun(guessing(known(90, expected, right), runtime=runtime), prompt(90))

    tokens = decode(context, 60, sampling)

    assert ids(tokens) == expected
    assert list(context.tokens) == prompt(90) + expected
    assert any(token.accepted for token in tokens) == any(right(k) for k in range(60))


def test_right_guesses_save_passes_and_are_counted(guessing, known, prompt, passes, plain, engine):
    expected = plain(41)
    passes.clear()
    context = begun(guessing(known(90, expected)), prompt(90))

    tokens = decode(context, 41)

    # The first token is drawn from the prompt's logits; each pass gives eight more.
    assert passes == [8, 8, 8, 8, 8]
    assert [token.drafted for token in tokens if token.drafted] == [7, 7, 7, 7, 7]
    assert sum(token.accepted for token in tokens) == 35


def test_wrong_guesses_are_counted_and_leave_no_trace(guessing, known, prompt, plain):
    expected = plain(20)
    context = begun(guessing(known(90, expected, lambda k: False)), prompt(90))

    tokens = decode(context, 20)

    assert ids(tokens) == expected
    assert sum(token.drafted for token in tokens) > 60
    assert not any(token.accepted for token in tokens)


def test_without_guesses_nothing_is_counted(guessing, prompt):
    tokens = decode(begun(guessing(), prompt(90)), 5)

    assert tokens == [Token(token.id) for token in tokens]


def test_a_copied_text_is_looked_up(engine, guessing, prompt):
    """A grammar that lets the model repeat its prompt only: every id but the first two is found."""
    text = prompt(60)
    rules = {place: OneOf(frozenset({token})) for place, token in enumerate(text)}
    context = begun(guessing(Lookup()), text)

    tokens = decode(context, 60, rules=Rules(rules))

    assert ids(tokens) == text
    assert sum(token.accepted for token in tokens) > 40


# To the last bit, in numpy


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 40])
@pytest.mark.parametrize("right", [lambda k: True, lambda k: k % 5 != 4, lambda k: False])
def test_the_state_has_the_bits_of_one_without_guesses(guessing, known, prompt, count, right):
    one, other = (begun(guessing(), prompt(90)) for _ in range(2))
    expected = ids(decode(one, 48))
    guesser = begun(guessing(known(90, expected, right)), prompt(90))
    decode(other, count)
    decode(guesser, count)

    assert_same_place(guesser, other)


def assert_same_place(one, other):
    one, other = one.checkpoint(), other.checkpoint()
    assert list(one.log) == list(other.log)
    assert one.state.position == other.state.position
    assert np.array_equal(one.logits, other.logits)
    for mine, theirs in zip(one.state.leaves(), other.state.leaves(), strict=True):
        assert np.array_equal(np.array(mine), np.array(theirs))


# With a grammar


def test_guesses_a_grammar_forbids_are_not_computed(guessing, known, prompt, passes, plain):
    expected = plain(30)
    banned = Free(frozenset({EOS, expected[4]}))
    context = begun(guessing(known(90, expected)), prompt(90))
    passes.clear()

    tokens = decode(context, 30, rules=Rules({4: banned}))

    assert expected[4] != tokens[4].id
    assert ids(tokens[:4]) == expected[:4]
    assert passes[0] == 4  # the first id and the guesses 1, 2, 3
    assert ids(tokens) == plain(30, rules=Rules({4: banned}))


def test_no_guess_goes_over_a_forced_run(guessing, known, prompt, runtime, passes, plain):
    """Its ids are computed as one batch with or without guesses, so no bit differs."""
    run = tuple(prompt(6, seed=8))
    rules = {10 + i: Forced(run[i:]) for i in range(6)}
    expected = plain(40, rules=Rules(rules))
    passes.clear()
    context = begun(guessing(known(90, expected), runtime=runtime), prompt(90))

    tokens = decode(context, 40, rules=Rules(rules))

    assert ids(tokens) == expected
    assert [token.forced for token in tokens] == [10 <= k < 16 for k in range(40)]
    # The ninth guess would be followed by the run, so nothing would be drawn from its logits.
    assert [token.drafted for token in tokens[:18]] == [0, 7, *[0] * 15, 7]


def test_a_guess_of_the_end_is_not_gone_beyond(guessing, known, prompt, plain, passes):
    expected = plain(9)
    context = begun(guessing(known(90, [*expected[:3], EOS, *expected[4:]])), prompt(90))
    passes.clear()

    assert ids(decode(context, 9)) == expected
    assert passes[0] == 3


# Cut off anywhere


@pytest.mark.parametrize("after", [1, 2, 5, 8, 9, 10, 25])
def test_a_caller_who_leaves_goes_on_alike(guessing, known, prompt, runtime, plain, after):
    expected = plain(50)
    context = begun(guessing(known(90, expected), runtime=runtime), prompt(90))
    for count, token in enumerate(
        context.sample(sampling=GREEDY, grammar=Rules(), max_tokens=50), start=1
    ):
        assert token.id == expected[count - 1]
        assert len(context.tokens) == 90 + count
        if count == after:
            break

    assert list(context.tokens) == prompt(90) + expected[:after]
    assert ids(decode(context, 50 - after)) == expected[after:]


def test_a_cancel_stops_between_two_tokens_of_a_pass(guessing, known, prompt, runtime, plain):
    expected = plain(50)
    context = begun(guessing(known(90, expected), runtime=runtime), prompt(90))
    cancel, taken = threading.Event(), []

    def stopped():
        tokens = context.sample(sampling=GREEDY, grammar=Rules(), max_tokens=50, cancel=cancel)
        for token in tokens:
            taken.append(token.id)
            if len(taken) == 5:
                cancel.set()

    with pytest.raises(Cancelled):
        stopped()
    assert taken == expected[:5]
    assert list(context.tokens) == prompt(90) + taken
    assert ids(decode(context, 45)) == expected[5:]


def test_no_more_is_guessed_than_may_come(guessing, known, prompt, passes, plain):
    expected = plain(40)
    context = begun(guessing(known(90, expected)), prompt(90))
    passes.clear()

    assert ids(decode(context, 6)) == expected[:6]
    assert passes == [5]  # of six tokens the first needs no pass, and the last none behind it


def test_a_context_that_is_nearly_full_is_filled(guessing, known, prompt):
    long = prompt(4090)
    expected = ids(decode(begun(guessing(), long), 100))
    context = begun(guessing(known(4090, [*expected, *prompt(20)])), long)

    assert len(expected) == 6
    assert ids(decode(context, 100)) == expected


def test_a_checkpoint_and_a_fork_in_the_middle_of_a_pass(guessing, known, prompt, runtime, plain):
    expected = plain(50)
    context = begun(guessing(known(90, expected), runtime=runtime), prompt(90))
    tokens = context.sample(sampling=GREEDY, grammar=Rules(), max_tokens=50)
    for _ in range(4):
        next(tokens)
    place, fork = context.checkpoint(), context.fork()
    rest = ids(tokens)

    assert place.token_count == 94
    assert ids(decode(fork, 46)) == rest == expected[4:]
    context.rewind(place)
    assert ids(decode(context, 46)) == expected[4:]


def test_behind_a_rewind_the_forgotten_text_is_not_looked_up(guessing, prompt, passes):
    context = begun(guessing(Lookup()), prompt(40))
    place = context.checkpoint()
    context.extend([5, 6, 7, 8, 9, 5, 6])
    context.rewind(place)
    context.extend([5, 6])
    passes.clear()

    decode(context, 1, rules=Rules({0: OneOf(frozenset({7}))}))
    assert passes == []


def test_a_session_saved_in_the_middle_goes_on_in_another_process(tiny, tmp_path, prompt):
    """With guesses or without: what was guessed right was saved as if it had been computed."""
    text = prompt(120)
    rules = {k: OneOf(frozenset({token})) for k, token in enumerate(text[20:70])}
    store = StoreOptions(tmp_path / "kv", 1 << 30)
    lines = {}
    for mode in ("off", "on"):
        first = ModelEngine(tiny, store=replace(store, directory=tmp_path / mode), speculate=mode)
        context = begun(first.new_context(), text + text[:20])
        decode(context, 50, rules=Rules(rules))
        context.save("answer")
        assert first.runtime.store.wait(30)
        own = ids(decode(context, 40))
        first.close()

        again = ModelEngine(tiny, store=replace(store, directory=tmp_path / mode), speculate=mode)
        restored, seen = again.new_context(), []
        restored.extend(text + text[:70], on_progress=seen.append)
        lines[mode] = own, ids(decode(restored, 40)), seen[-1].restored
        again.close()

    assert lines["on"] == lines["off"]
    assert lines["on"][0] == lines["on"][1]
    assert lines["on"][2] >= 189


# Beside others, and in trouble


def test_contexts_that_decode_together_do_not_guess(guessing, known, prompt, engine, passes, plain):
    expected = plain(20)
    context = begun(guessing(known(90, expected)), prompt(90))
    passes.clear()

    with engine.batching(4):
        assert ids(decode(context, 20)) == expected
    assert passes == []


def test_a_closed_engine_leaves_what_was_drawn(tiny, prompt):
    engine = ModelEngine(tiny, speculate="on")
    text = prompt(30)
    context = begun(engine.new_context(), text + text[:10])
    rules = Rules({k: OneOf(frozenset({text[10 + k]})) for k in range(20)})
    tokens = context.sample(sampling=GREEDY, grammar=rules, max_tokens=20)
    taken = [next(tokens).id for _ in range(4)]
    engine.close()
    tokens.close()

    assert list(context.tokens[-4:]) == taken == text[10:14]
    with pytest.raises(EngineError, match="closed"):
        decode(context, 2)


def test_an_engine_says_what_it_chose(tiny, prompt):
    said = {}
    for mode in ("off", "on", "auto"):
        engine = ModelEngine(tiny, speculate=mode)
        decode(begun(engine.new_context(), prompt(30)), 40)
        said[mode] = engine.speculation
        engine.close()

    assert said["off"] == "speculation is off"
    assert said["on"].startswith("speculation is on")
    assert said["auto"].startswith("speculation ")
