"""The token log: an append-only value whose forks share what they have in common."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds4_agent.engine.errors import ContextFullError, TokenRangeError
from ds4_agent.engine.tokenlog import TokenLog, check_ids


def test_reads_as_a_sequence():
    log = TokenLog().appended([1, 2, 3]).appended([4])

    assert len(log) == 4
    assert list(log) == [1, 2, 3, 4]
    assert (log[0], log[-1]) == (1, 4)
    assert log[1:3] == [2, 3]
    assert log[::-1] == [4, 3, 2, 1]
    assert log == [1, 2, 3, 4]
    assert log != [1, 2, 3]
    assert 3 in log


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_outside_is_an_error(index):
    with pytest.raises(IndexError):
        TokenLog().appended([1, 2, 3])[index]


def test_an_old_value_never_sees_what_was_appended_later():
    old = TokenLog().appended([1, 2])
    new = old.appended([3])

    assert (list(old), old[:], old[-1]) == ([1, 2], [1, 2], 2)
    assert list(new) == [1, 2, 3]


def test_two_values_that_go_on_from_one_part_ways():
    base = TokenLog().appended([1, 2])
    left, right = base.appended([3]), base.appended([4])
    left, right = left.appended([5]), right.appended([6])

    assert (list(base), list(left), list(right)) == ([1, 2], [1, 2, 3, 5], [1, 2, 4, 6])


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 99), max_size=4))))
def test_any_tree_of_appends_equals_the_same_tree_of_tuples(steps):
    logs, tuples = [TokenLog()], [()]
    for choice, ids in steps:
        parent = choice % len(logs)
        logs.append(logs[parent].appended(ids))
        tuples.append(tuples[parent] + tuple(ids))

    assert [tuple(log) for log in logs] == tuples


def test_forks_on_two_threads_do_not_mix():
    base = TokenLog().appended(range(1000))
    results = {}

    def grow(name):
        log = base
        for step in range(2000):
            log = log.appended([name * 10_000 + step])
        results[name] = log

    threads = [threading.Thread(target=grow, args=(name,)) for name in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for name in (1, 2):
        assert results[name][1000:] == [name * 10_000 + step for step in range(2000)]


def test_keeping_and_continuing_a_long_log_takes_under_a_millisecond():
    log = TokenLog().appended(range(25_000))

    def continue_twice():
        began = time.perf_counter()
        left, right = log.appended([1]), log.appended([2])
        assert (left[-1], right[-1]) == (1, 2)
        return time.perf_counter() - began

    assert min(continue_twice() for _ in range(5)) < 1e-3


@pytest.mark.parametrize(("ids", "bad"), [([0, 10], 10), ([-1], -1)])
def test_an_id_outside_the_vocabulary_is_named_with_its_place(ids, bad):
    with pytest.raises(TokenRangeError, match=rf"token id {bad} at position {4 + len(ids)}"):
        check_ids(ids, vocabulary=10, held=5, limit=100)


def test_too_many_tokens_say_how_many_and_the_limit():
    with pytest.raises(ContextFullError, match=r"needs 11 tokens and the context holds 10") as full:
        check_ids([1] * 6, vocabulary=10, held=5, limit=10)
    assert (full.value.needed, full.value.limit) == (11, 10)


def test_a_context_may_be_filled_to_the_brim():
    check_ids([1] * 5, vocabulary=10, held=5, limit=10)
