"""Contexts that decode at the same time, each in its own thread: one batch through the model, and
to each the tokens it gets alone, whatever happens to the others."""

import copy
import threading
import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from ds4_agent.engine import steps as steps_module
from ds4_agent.engine.api import Sampling
from ds4_agent.engine.dsml.constraints import Forced, Free
from ds4_agent.engine.errors import Cancelled, EngineError, TokenRangeError
from ds4_agent.engine.local import ModelEngine
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.open import open_engine

GREEDY = Sampling(temperature=0.0)
DRAWN = Sampling(temperature=1.0, top_p=0.9, seed=7)
LENGTHS = (5, 90, 126, 127, 128, 250)
EOS = 1
LONG = 20.0  # seconds: a test that waits so long has failed


class Steps:
    """Anything but the end; `forced` comes after three tokens, when `ready` has returned."""

    def __init__(self, forced=(), ready=lambda: None):
        self.forced, self.left, self.ready = forced, 3, ready

    def constraint(self):
        if self.forced and self.left <= 0:
            self.ready()
            return Forced(tuple(self.forced))
        return Free(frozenset({EOS}))

    def copy(self):
        return copy.copy(self)

    def accept(self, token_id):
        if self.left <= 0:
            self.forced = self.forced[1:]
        self.left -= 1


def prompt(length):
    return np.random.default_rng(length).integers(16, 2048, length).tolist()


def context_of(engine, length):
    context = engine.new_context()
    context.extend(prompt(length))
    return context


def decode(context, count, sampling=GREEDY, grammar=None, cancel=None):
    grammar = grammar or Steps()
    tokens = context.sample(sampling=sampling, grammar=grammar, max_tokens=count, cancel=cancel)
    return [token.id for token in tokens]


def at_once(*works):
    """What each of `works` returns or raises, all run at the same time."""
    outcomes = [None] * len(works)

    def run(number, work):
        try:
            outcomes[number] = work()
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads), "a context waits for ever"
    return outcomes


@pytest.fixture
def batches(monkeypatch):
    """The size of every batch that went through the model."""
    sizes, step_many = [], Model.step_many

    def noted(model, tokens, states):
        sizes.append(len(states))
        return step_many(model, tokens, states)

    monkeypatch.setattr(Model, "step_many", noted)
    return sizes


@pytest.fixture
def endless_patience(monkeypatch):
    """Whoever is expected is waited for, in effect until he comes or says that he does not."""
    monkeypatch.setattr(steps_module, "PATIENCE", 20_000.0)


def held(engine):
    """The engine thread, busy until the event returned is set."""
    release = threading.Event()
    engine.runtime.worker.submit(release.wait, LONG)
    return release


def until_waiting(engine, count):
    deadline = time.monotonic() + LONG
    while len(engine.runtime.steps._waiting) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


# The same tokens


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN])
def test_each_context_gets_the_tokens_it_gets_alone(engine, batches, sampling):
    """Over lengths on both sides of a block, each to beyond the next one."""
    contexts = [context_of(engine, length) for length in LENGTHS]
    alone = [decode(context.fork(), 140, sampling) for context in contexts]
    assert batches == []

    with engine.batching(8):
        found = at_once(*(lambda c=c: decode(c, 140, sampling) for c in contexts))

    assert found == alone
    assert max(batches) == len(LENGTHS)


def test_forks_of_one_prefix_decode_together(engine, batches):
    base = context_of(engine, 200)
    forks = [base.fork() for _ in range(6)]
    for number, fork in enumerate(forks):
        fork.extend(prompt(10 + number))
    alone = [decode(fork.fork(), 30) for fork in forks]

    with engine.batching(8):
        found = at_once(*(lambda f=f: decode(f, 30) for f in forks))

    assert found == alone
    assert max(batches) == 6
    assert list(base.tokens) == prompt(200)


def test_no_batch_is_larger_than_was_asked_for(engine, batches):
    contexts = [context_of(engine, length) for length in LENGTHS]
    alone = [decode(context.fork(), 20) for context in contexts]

    with engine.batching(2):
        found = at_once(*(lambda c=c: decode(c, 20) for c in contexts))

    assert found == alone
    assert max(batches) == 2


def test_outside_nothing_is_gathered(engine, batches):
    contexts = [context_of(engine, length) for length in LENGTHS]
    with engine.batching(8):
        pass

    at_once(*(lambda c=c: decode(c, 10) for c in contexts))

    assert batches == []


def test_some_prefill_while_others_decode(engine):
    contexts = [context_of(engine, length) for length in LENGTHS[:3]]
    alone = [decode(context.fork(), 60) for context in contexts]
    late = decode(context_of(engine, 1500), 20)

    with engine.batching(8):
        found = at_once(
            *(lambda c=c: decode(c, 60) for c in contexts),
            lambda: decode(context_of(engine, 1500), 20),
        )

    assert found == [*alone, late]


# Nobody waits in vain. With endless patience, whoever is not told about hangs.


def test_a_context_alone_waits_for_nobody(engine, endless_patience):
    context = context_of(engine, 50)

    with engine.batching(8):
        assert len(decode(context, 20)) == 20


def test_who_ends_earlier_is_not_waited_for(engine, endless_patience):
    counts = (1, 2, 5, 20, 40)

    with engine.batching(8):
        found = at_once(*(lambda n=n: decode(context_of(engine, 60 + n), n) for n in counts))

    assert [len(ids) for ids in found] == list(counts)


def test_who_breaks_off_is_not_waited_for(engine, endless_patience):
    def first(context):
        for token in context.sample(sampling=GREEDY, grammar=Steps(), max_tokens=50):
            if len(context.tokens) == 60 + 3:
                return token.id
        raise AssertionError

    with engine.batching(8):
        found = at_once(
            lambda: first(context_of(engine, 60)), lambda: decode(context_of(engine, 70), 40)
        )

    assert len(found[1]) == 40


def test_who_has_a_forced_run_computed_is_not_waited_for(engine, endless_patience):
    """While another waits for it already, so that its run comes behind the batch."""
    forced = tuple(prompt(30))
    contexts = [context_of(engine, length) for length in (40, 41)]
    alone = [decode(contexts[0].fork(), 60, grammar=Steps(forced)), decode(contexts[1].fork(), 60)]

    def ready():
        until_waiting(engine, 1)

    with engine.batching(8):
        found = at_once(
            lambda: decode(contexts[0], 60, grammar=Steps(forced, ready)),
            lambda: decode(contexts[1], 60),
        )

    assert found == alone


def test_who_leaves_without_a_word_is_waited_for_once(engine):
    """A caller that keeps its iterator open and does something else."""
    slow = context_of(engine, 33)
    others_are_done = threading.Event()

    def dawdle():
        tokens = slow.sample(sampling=GREEDY, grammar=Steps(), max_tokens=20)
        taken = [next(tokens).id for _ in range(5)]
        assert others_are_done.wait(LONG)
        return taken + [token.id for token in tokens]

    def others():
        ids = at_once(*(lambda n=n: decode(context_of(engine, n), 40) for n in (50, 51)))
        others_are_done.set()
        return ids

    alone = decode(slow.fork(), 20)
    with engine.batching(8):
        found, _ = at_once(dawdle, others)

    assert found == alone


# What happens to one does not happen to the others


def test_one_is_cancelled_in_the_middle(engine, endless_patience):
    contexts = [context_of(engine, length) for length in (100, 110, 120)]
    alone = [decode(context.fork(), 40) for context in contexts]
    stop, taken = threading.Event(), []

    def cancelled():
        tokens = contexts[0].sample(sampling=GREEDY, grammar=Steps(), max_tokens=40, cancel=stop)
        for token in tokens:
            taken.append(token.id)
            if len(taken) == 7:
                stop.set()

    with engine.batching(8):
        found = at_once(cancelled, *(lambda c=c: decode(c, 40) for c in contexts[1:]))

    assert isinstance(found[0], Cancelled)
    assert found[1:] == alone[1:]
    assert taken == alone[0][:7]
    assert taken + decode(contexts[0], 33) == alone[0]


@pytest.mark.parametrize("fault", ["token", "state"])
def test_one_fails_and_the_others_of_its_batch_do_not(engine, batches, fault):
    gathered = engine.runtime.steps
    states = [context_of(engine, length).checkpoint().state for length in (20, 127, 40)]
    expected = [engine.runtime.worker.call(engine.runtime.model, [9], s) for s in states]
    token, broken = 9, states[1]
    if fault == "token":
        token = 1_000_000
    else:
        damaged = replace(broken.layers[1], rows=None)
        broken = replace(broken, layers=(broken.layers[0], damaged, *broken.layers[2:]))

    with engine.batching(8):
        release = held(engine)
        works = [
            lambda: gathered.step("a", 9, states[0]),
            lambda: gathered.step("b", token, broken),
            lambda: gathered.step("c", 9, states[2]),
            lambda: until_waiting(engine, 3) or release.set(),
        ]
        found = at_once(*works)
    for owner in "abc":
        gathered.leave(owner)

    assert isinstance(found[1], TokenRangeError if fault == "token" else EngineError)
    assert batches == [3, 1, 1, 1]
    for i in (0, 2):
        assert np.array_equal(found[i][0], np.array(expected[i][0])[:2048])
        assert found[i][1].position == states[i].position + 1


def test_a_closed_engine_tells_all_who_wait(tiny):
    engine = ModelEngine(tiny)
    contexts = [context_of(engine, length) for length in (20, 30, 40)]

    def close():
        until_waiting(engine, 3)
        threading.Timer(0.05, release.set).start()
        engine.close()

    with engine.batching(8):
        release = held(engine)
        found = at_once(*(lambda c=c: decode(c, 5) for c in contexts), close)

    assert [str(error) for error in found[:3]] == ["the engine is closed"] * 3


def test_a_script_may_be_asked_as_well(tmp_path):
    script = tmp_path / "script.jsonl"
    script.write_text('{"text": "done"}\n', encoding="utf-8")
    engine = open_engine(f"scripted:{script}")

    with engine.batching(4) as nothing:
        assert nothing is None
    assert isinstance(engine.batching(4), nullcontext)
