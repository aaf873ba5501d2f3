"""A context of a real (tiny, random) model: however a sequence came about, it goes on alike."""

import threading
import time

import numpy as np
import pytest

from ds4_agent.engine.api import Sampling
from ds4_agent.engine.dsml.constraints import Forced, Free, OneOf
from ds4_agent.engine.errors import Cancelled, ContextFullError, EngineError, TokenRangeError
from ds4_agent.engine.local import ModelEngine

GREEDY = Sampling(temperature=0.0)
EOS = 1


class Steps:
    """A GrammarState that follows a fixed list of constraints, then allows all but EOS."""

    def __init__(self, *constraints):
        self.constraints = list(constraints)
        self.accepted = []
        self._left = 0

    def constraint(self):
        return self.constraints[0] if self.constraints else Free(frozenset({EOS}))

    def copy(self):
        other = Steps(*self.constraints)
        other.accepted, other._left = [*self.accepted], self._left
        return other

    def accept(self, token_id):
        self.accepted.append(token_id)
        if self._left == 0 and self.constraints:
            first = self.constraints.pop(0)
            self._left = len(first.ids) if isinstance(first, Forced) else 1
        self._left = max(0, self._left - 1)


def prompt(length, seed=5):
    return np.random.default_rng(seed).integers(16, 2048, length).tolist()


def sample(context, count, grammar=None, sampling=GREEDY, cancel=None):
    grammar = grammar or Steps()
    return list(context.sample(sampling=sampling, grammar=grammar, max_tokens=count, cancel=cancel))


def seconds(operation):
    began = time.perf_counter()
    operation()
    return time.perf_counter() - began


def ids(tokens):
    return [token.id for token in tokens]


@pytest.fixture
def context(engine):
    return engine.new_context()


@pytest.fixture(scope="module")
def uninterrupted(engine):
    """The greedy continuation of `prompt(1300)`, from one extend."""
    context = engine.new_context()
    context.extend(prompt(1300))
    return ids(sample(context, 24))


# extend


@pytest.mark.parametrize("cuts", [(1,), (127, 128, 129, 400), (1024, 1152), (1299,)])
def test_however_a_prompt_is_cut_it_goes_on_alike(context, uninterrupted, cuts):
    whole = prompt(1300)
    for start, stop in zip((0, *cuts), (*cuts, 1300), strict=True):
        context.extend(whole[start:stop])

    assert ids(sample(context, 24)) == uninterrupted


def test_progress_counts_chunks_in_the_callers_thread(context):
    context.extend(prompt(100))
    seen, threads = [], set()

    def on_progress(progress):
        seen.append((progress.done, progress.total, progress.reused))
        threads.add(threading.get_ident())
        assert progress.tokens_per_second > 0

    context.extend(prompt(2000), on_progress=on_progress)

    # Chunks of 1024 end on multiples of 128: tokens 100-1024, 1024-2048, 2048-2100.
    assert seen == [(924, 2000, 100), (1948, 2000, 100), (2000, 2000, 100)]
    assert threads == {threading.get_ident()}


def test_a_cancelled_prefill_keeps_its_chunks_and_goes_on_alike(context, uninterrupted):
    cancel, done = threading.Event(), []

    def stop_after_the_first(progress):
        done.append(progress.done)
        cancel.set()

    with pytest.raises(Cancelled):
        context.extend(prompt(1300), on_progress=stop_after_the_first, cancel=cancel)
    reused = []
    context.extend([], on_progress=lambda progress: reused.append(progress.reused))

    assert done == [1024]
    assert len(context.tokens) == 1300
    assert reused[0] == 1024
    assert ids(sample(context, 24)) == uninterrupted


def test_sample_computes_what_a_cancelled_extend_left(context, uninterrupted):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        context.extend(prompt(1300), cancel=cancel)

    assert ids(sample(context, 24)) == uninterrupted


@pytest.mark.parametrize(
    ("bad", "error"), [([5, 2048], TokenRangeError), ([5] * 4097, ContextFullError)]
)
def test_a_bad_extend_changes_nothing(context, bad, error):
    context.extend([7])
    with pytest.raises(error):
        context.extend(bad)

    assert list(context.tokens) == [7]


def test_extending_by_nothing_computes_nothing(context):
    context.extend([7])
    seen = []
    context.extend([], on_progress=seen.append)

    assert seen == []


# sample


def test_sampled_tokens_are_in_the_context_when_they_are_yielded(context):
    context.extend(prompt(10))
    for count, token in enumerate(
        context.sample(sampling=GREEDY, grammar=Steps(), max_tokens=5), start=1
    ):
        assert len(context.tokens) == 10 + count
        assert context.tokens[-1] == token.id


def test_sampling_in_pieces_equals_sampling_in_one(context, uninterrupted):
    context.extend(prompt(1300))
    found = [token for _ in range(8) for token in sample(context, 3)]

    assert ids(found) == uninterrupted


def test_max_tokens_ends_it(context):
    context.extend(prompt(10))

    assert len(sample(context, 3)) == 3
    assert sample(context, 0) == []


def test_the_end_token_is_yielded_and_ends_it(context):
    context.extend(prompt(10))
    grammar = Steps(OneOf(frozenset({50})), OneOf(frozenset({EOS})))

    assert ids(sample(context, 9, grammar)) == [50, EOS]
    assert list(context.tokens[-2:]) == [50, EOS]


def test_a_full_context_ends_it_and_then_refuses(tiny):
    engine = ModelEngine(tiny, context_length=12)
    context = engine.new_context()
    context.extend(prompt(10))
    first = sample(context, 9)

    assert len(first) == 2
    with pytest.raises(ContextFullError, match="needs 13 tokens and the context holds 12"):
        sample(context, 9)
    engine.close()


def test_a_cancelled_sample_goes_on_alike(context, uninterrupted):
    context.extend(prompt(1300))
    cancel = threading.Event()
    tokens = context.sample(sampling=GREEDY, grammar=Steps(), max_tokens=24, cancel=cancel)
    found = [next(tokens) for _ in range(7)]
    cancel.set()

    with pytest.raises(Cancelled):
        next(tokens)
    assert ids(found) == uninterrupted[:7]
    assert ids(sample(context, 17)) == uninterrupted[7:]


def test_leaving_the_loop_is_safe(context, uninterrupted):
    context.extend(prompt(1300))
    for _ in context.sample(sampling=GREEDY, grammar=Steps(), max_tokens=24):
        break

    assert ids(sample(context, 23)) == uninterrupted[1:]


def test_an_empty_context_has_nothing_to_go_on_from(context):
    with pytest.raises(EngineError, match="extend the context first"):
        sample(context, 1)


def test_a_seed_gives_the_same_tokens_again(engine):
    found = []
    for seed in (1, 1, 2):
        context = engine.new_context()
        context.extend(prompt(40))
        found.append(ids(sample(context, 12, sampling=Sampling(seed=seed))))

    assert found[0] == found[1] != found[2]


# grammar


def test_a_forced_run_equals_the_same_ids_one_by_one(engine):
    run = tuple(prompt(9, seed=8))
    by_run, by_one = engine.new_context(), engine.new_context()
    for context in (by_run, by_one):
        context.extend(prompt(200))

    batch = sample(by_run, 20, Steps(Free(frozenset({EOS})), Forced(run)))
    single = sample(
        by_one, 20, Steps(Free(frozenset({EOS})), *(OneOf(frozenset({i})) for i in run))
    )

    assert ids(batch) == ids(single)
    assert [token.forced for token in batch] == [False, *[True] * 9, *[False] * 10]
    assert not any(token.forced for token in single)


def test_a_forced_run_is_computed_in_one_request(engine, monkeypatch):
    context = engine.new_context()
    context.extend(prompt(20))
    worker, call, positions = engine.runtime.worker, engine.runtime.worker.call, [20]

    def counted(fn, *arguments):
        result = call(fn, *arguments)
        positions.append(result[1].position)
        return result

    monkeypatch.setattr(worker, "call", counted)
    sample(context, 12, Steps(Forced(tuple(prompt(9)))))

    assert positions == [20, 29, 30, 31]  # the last token stays pending


def test_the_grammar_hears_every_id_in_order(context):
    context.extend(prompt(10))
    grammar = Steps(Forced((40, 41, 42)))
    found = sample(context, 6, grammar)

    assert grammar.accepted == ids(found)
    assert ids(found)[:3] == [40, 41, 42]


def test_who_leaves_within_a_forced_run_has_just_what_was_seen(context):
    context.extend(prompt(10))
    grammar = Steps(Forced((40, 41, 42)))
    for token in context.sample(sampling=GREEDY, grammar=grammar, max_tokens=9):
        if token.id == 41:
            break

    assert list(context.tokens[10:]) == [40, 41]
    assert grammar.accepted == [40, 41]


def test_a_forced_run_is_cut_at_max_tokens(context):
    context.extend(prompt(10))

    assert ids(sample(context, 2, Steps(Forced((40, 41, 42))))) == [40, 41]


# fork, checkpoint, rewind


def test_a_fork_goes_on_alike_and_alone(context, uninterrupted):
    context.extend(prompt(1300))
    fork = context.fork()
    context.extend(prompt(30, seed=9))
    sample(context, 5)

    assert ids(sample(fork, 24)) == uninterrupted


def test_two_forks_run_in_turn_as_if_each_were_alone(engine):
    def alone(seed):
        context = engine.new_context()
        context.extend(prompt(300))
        context.extend(prompt(5, seed=seed))
        return ids(sample(context, 20))

    base = engine.new_context()
    base.extend(prompt(300))
    left, right = base.fork(), base.fork()
    left.extend(prompt(5, seed=1))
    right.extend(prompt(5, seed=2))
    found = [(sample(left, 1)[0].id, sample(right, 1)[0].id) for _ in range(20)]

    assert [pair[0] for pair in found] == alone(1)
    assert [pair[1] for pair in found] == alone(2)


def test_a_rewind_goes_on_alike(context, uninterrupted):
    context.extend(prompt(1300))
    place = context.checkpoint()
    context.extend(prompt(200, seed=9))
    sample(context, 5)
    context.rewind(place)

    assert (place.token_count, len(context.tokens)) == (1300, 1300)
    assert ids(sample(context, 24)) == uninterrupted


def test_a_rewind_into_sampled_tokens_goes_on_alike(context, uninterrupted):
    context.extend(prompt(1300))
    sample(context, 10)
    place = context.checkpoint()
    sample(context, 9)
    context.rewind(place)

    assert ids(sample(context, 14)) == uninterrupted[10:]


def test_a_checkpoint_serves_any_number_of_times(context, uninterrupted):
    context.extend(prompt(1300))
    place = context.checkpoint()

    for _ in range(3):
        context.rewind(place)
        assert ids(sample(context, 4)) == uninterrupted[:4]


def test_a_rewind_needs_no_computing(context):
    context.extend(prompt(300))
    place = context.checkpoint()
    context.extend(prompt(50))
    context.rewind(place)
    seen = []
    context.extend([], on_progress=seen.append)

    assert seen == []


def test_a_fork_may_rewind_to_a_place_before_it_was_made(context):
    context.extend(prompt(50))
    place = context.checkpoint()
    context.extend(prompt(20))
    fork = context.fork()
    fork.rewind(place)

    assert (len(fork.tokens), len(context.tokens)) == (50, 70)


@pytest.mark.parametrize("what", ["fork", "checkpoint", "rewind"])
def test_going_back_and_apart_takes_under_a_millisecond(context, what):
    context.extend(prompt(1000))
    place = context.checkpoint()
    operation = {
        "fork": context.fork,
        "checkpoint": context.checkpoint,
        "rewind": lambda: context.rewind(place),
    }[what]

    assert min(seconds(operation) for _ in range(5)) < 1e-3


def test_a_checkpoint_of_another_model_is_refused(tiny, context):
    other = ModelEngine(tiny)
    place = other.new_context().checkpoint()

    for foreign in (place, object()):
        with pytest.raises(EngineError, match="belongs to another model"):
            context.rewind(foreign)
    other.close()


# the engine thread


def test_contexts_of_two_threads_do_not_disturb_each_other(engine, uninterrupted):
    found = {}

    def run(name):
        context = engine.new_context()
        context.extend(prompt(1300))
        found[name] = ids(sample(context, 24))

    threads = [threading.Thread(target=run, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {0: uninterrupted, 1: uninterrupted}


def test_a_fault_in_the_model_is_an_engine_error_and_leaves_the_context_valid(
    engine, context, monkeypatch
):
    context.extend(prompt(300))
    place = context.checkpoint()
    with monkeypatch.context() as patch:
        patch.setattr(type(engine.runtime.model), "__call__", lambda *a: 1 / 0)
        with pytest.raises(EngineError, match="the engine failed: ZeroDivisionError"):
            context.extend(prompt(5))

    assert len(context.tokens) == 305
    after = ids(sample(context, 4))
    context.rewind(place)
    context.extend(prompt(5))
    assert ids(sample(context, 4)) == after
