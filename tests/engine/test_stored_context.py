"""Contexts over a store: what any session computed before is restored, goes on alike, and is never
anything else than what would have been computed."""

import random
import threading

import numpy as np
import pytest

from ds4_agent.engine import context as context_module
from ds4_agent.engine.api import Sampling, StoreOptions
from ds4_agent.engine.errors import Cancelled
from ds4_agent.engine.local import ModelEngine

GREEDY = Sampling(temperature=0.0)
BUDGET = 1 << 30
WAIT = 30


def prompt(length, seed=5):
    return np.random.default_rng(seed).integers(16, 2048, length).tolist()


def greedy(context, count=24):
    tokens = context.sample(sampling=GREEDY, grammar=None, max_tokens=count)
    return [token.id for token in tokens]


@pytest.fixture
def start(tiny, tmp_path):
    """`start()`: an engine as a new process opens it, over the one store of the test."""
    engines = []

    def open_engine(directory=tiny, store=tmp_path / "kv"):
        options = None if store is None else StoreOptions(store, BUDGET)
        engines.append(ModelEngine(directory, store=options))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.close()


def flush(engine):
    assert engine.runtime.store.wait(WAIT)
    assert engine.store_failure == ""


def extended(engine, ids, **options):
    """A new context with these tokens, and what its prefill reported."""
    context, seen = engine.new_context(), []
    context.extend(ids, on_progress=seen.append, **options)
    return context, seen


def saved(engine, ids, point="prompt"):
    context, _ = extended(engine, ids)
    context.save(point)
    flush(engine)
    return context


def test_a_prompt_is_computed_once_for_all_processes(start):
    first = saved(start(), prompt(1300))
    expected = greedy(first)

    context, seen = extended(start(), prompt(1300))

    assert [(p.done, p.total, p.reused, p.restored) for p in seen] == [(0, 0, 1300, 1300)]
    assert greedy(context) == expected


@pytest.mark.parametrize("stored", [100, 128, 1000])
def test_only_what_is_new_is_computed(start, stored):
    whole = prompt(1300)
    expected = greedy(extended(start(store=None), whole)[0])
    saved(start(), whole[:stored])

    context, seen = extended(start(), whole)

    assert {(p.total, p.reused, p.restored) for p in seen} == {(1300 - stored, stored, stored)}
    assert greedy(context) == expected


@pytest.mark.parametrize("answered", [5, 60, 140])
def test_an_answer_goes_on_alike_in_a_new_process(start, answered):
    """Also where the answer crossed a block."""
    engine = start()
    context = saved(engine, prompt(300))
    taken = greedy(context, answered)
    context.save("answer")
    flush(engine)
    expected = greedy(context)

    other, seen = extended(start(), prompt(300) + taken)

    assert seen[-1].restored >= 300 + answered - 1  # the last sampled token was not computed
    assert greedy(other) == expected


def test_an_interrupted_prefill_goes_on_from_its_last_chunk(start):
    cancel, engine = threading.Event(), start()
    with pytest.raises(Cancelled):
        engine.new_context().extend(
            prompt(3000), cancel=cancel, on_progress=lambda p: p.done < 2048 or cancel.set()
        )
    engine.close()

    _, seen = extended(start(), prompt(3000))

    assert seen[0].restored == 2048
    assert seen[-1].done == 3000 - 2048


class Killed(BaseException):
    pass


def test_a_long_prefill_is_kept_now_and_then(start, monkeypatch):
    """What a killed process has left."""
    monkeypatch.setattr(context_module, "SAVED_EVERY", 1024)
    engine = start()

    def kill(progress):
        flush(engine)
        if progress.done >= 3072:
            raise Killed

    with pytest.raises(Killed):
        engine.new_context().extend(prompt(4000), on_progress=kill)

    _, seen = extended(start(), prompt(4000))
    assert seen[0].restored == 2048


def test_a_system_prompt_is_kept_where_it_ends(start):
    system = prompt(500)
    first, seen = extended(start(), system + prompt(200, seed=1), stable=500)
    assert [p.done for p in seen] == [500, 700]
    flush_all = first._runtime.store.wait(WAIT)
    assert flush_all

    _, seen = extended(start(), system + prompt(300, seed=2), stable=500)

    assert (seen[-1].restored, seen[-1].done) == (500, 300)


def test_the_place_before_the_first_prompt_is_kept_too(start):
    begun = prompt(620)
    first, seen = extended(start(), begun + prompt(80, seed=1), stable=500, opening=620)
    assert [p.done for p in seen] == [500, 620, 700]
    assert first._runtime.store.wait(WAIT)

    _, seen = extended(start(), begun + prompt(90, seed=2), stable=500, opening=620)

    assert (seen[-1].restored, seen[-1].done) == (620, 90)


def test_a_context_behind_a_restored_one_is_saved_and_restored(start):
    whole = prompt(2000)
    for end in (300, 700, 1100, 2000):
        engine = start()
        saved(engine, whole[:end])
        engine.close()

    context, seen = extended(start(), whole)

    assert seen[-1].restored == 2000
    assert greedy(context) == greedy(extended(start(store=None), whole)[0])


def test_a_fork_and_a_rewound_context_are_saved_as_they_are(start):
    engine, whole = start(), prompt(900)
    context = saved(engine, whole[:500])
    place, fork = context.checkpoint(), context.fork()
    context.extend(whole[500:])
    fork.extend(prompt(400, seed=8))
    context.save("prompt")
    fork.save("prompt")
    context.rewind(place)
    context.extend(prompt(300, seed=9))
    context.save("answer")
    flush(engine)
    expected = [greedy(context), greedy(fork)]

    tails = (prompt(300, seed=9), prompt(400, seed=8))
    found = [extended(start(), whole[:500] + tail) for tail in tails]

    assert [seen[-1].restored for _, seen in found] == [800, 900]
    assert [greedy(context) for context, _ in found] == expected


def test_little_is_not_looked_for(start):
    engine = start()
    saved(engine, prompt(1300))

    context, _ = extended(engine, prompt(1296))
    seen = []
    context.extend(prompt(1300)[1296:], on_progress=seen.append)

    assert [(p.done, p.restored) for p in seen] == [(4, 0)]


def test_another_model_computes_for_itself(start, write_tiny, tmp_path):
    saved(start(), prompt(600))
    other = write_tiny(tmp_path / "other", seed=2)

    context, seen = extended(start(other), prompt(600))

    assert seen[-1].restored == 0
    assert greedy(context) == greedy(extended(start(other, store=None), prompt(600))[0])


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_to_the_files_the_answer_is_right(start, tmp_path, seed):
    whole = prompt(1500)
    expected = greedy(extended(start(store=None), whole)[0])
    engine = start()
    for end in (400, 900, 1500):
        saved(engine, whole[:end])
    engine.close()
    rng = random.Random(seed)
    files = sorted(path for path in (tmp_path / "kv").rglob("*") if path.is_file())
    for path in rng.sample(files, rng.randint(1, len(files))):
        spoil(path, rng, files)

    context, _ = extended(start(), whole)
    again, _ = extended(start(), whole)

    assert greedy(context) == expected
    assert greedy(again) == expected


def spoil(path, rng, files):
    if not path.exists():
        return
    data = bytearray(path.read_bytes())
    how = rng.choice(["flip", "cut", "zeros", "gone", "other"])
    at = rng.randrange(max(len(data), 1))
    if how == "gone":
        path.unlink()
    elif how == "other":
        other = rng.choice(files)
        path.write_bytes(other.read_bytes() if other.exists() else b"")
    else:
        if how == "flip" and data:
            data[at] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del data[at:]
        else:
            data[at : at + 4096] = bytes(len(data[at : at + 4096]))
        path.write_bytes(data)


def test_without_a_disk_it_computes_and_says_so_once(start, tmp_path):
    (tmp_path / "kv").write_text("a file where the store should be")
    engine = start()
    context, _ = extended(engine, prompt(300))
    context.save("prompt")
    assert engine.runtime.store.wait(WAIT)

    assert engine.store_failure.startswith("the KV cache is off: ")
    assert greedy(context) == greedy(extended(start(store=None), prompt(300))[0])


def test_closing_leaves_no_half_file(start, tmp_path):
    engine = start()
    context, _ = extended(engine, prompt(1000))
    context.save("prompt")
    engine.close()

    assert not list((tmp_path / "kv" / "tmp").glob("*"))
    context, _ = extended(start(), prompt(1000))
    assert greedy(context) == greedy(extended(start(store=None), prompt(1000))[0])


def test_a_scripted_engine_and_one_without_a_store_save_nothing(start):
    context, _ = extended(start(store=None), prompt(20))
    context.save("prompt")

    assert context.divergence() is None
    assert start(store=None).store_failure == ""
