"""Drafts from the context: what stood behind the longest, latest earlier occurrence."""

import numpy as np
import pytest

from ds4_agent.engine.speculative.lookup import LEAST_MATCH, LONGEST_DRAFT, Lookup
from ds4_agent.engine.tokenlog import TokenLog


def drafted(ids, count=LONGEST_DRAFT):
    offer = Lookup().propose(TokenLog().appended(ids))
    return None if offer is None else list(offer.draft(count))


def test_what_stood_behind_the_same_ids_is_proposed():
    assert drafted([1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3], 4) == [4, 5, 6, 7]


def test_the_longest_match_goes_before_a_later_one():
    assert drafted([7, 1, 2, 50, 51, 8, 1, 2, 60, 61, 9, 7, 1, 2], 2) == [50, 51]


def test_of_matches_as_long_the_latest_is_taken():
    assert drafted([7, 1, 2, 50, 51, 7, 1, 2, 60, 61, 9, 7, 1, 2], 2) == [60, 61]


def test_one_id_alone_is_no_match():
    assert LEAST_MATCH == 2
    assert drafted([1, 2, 3, 4, 1]) is None
    assert drafted([4, 9, 9, 9, 3, 4]) is None


@pytest.mark.parametrize("ids", [[], [5], [5, 5], [1, 2, 3]])
def test_a_beginning_has_nothing_to_look_up(ids):
    assert drafted(ids) is None


def test_a_repetition_goes_on():
    """Behind an occurrence that ends two ids before the end, the two come again and again."""
    assert drafted([3, 8, 9, 8, 9, 8, 9], 5) == [8, 9, 8, 9, 8]
    assert drafted([4, 4, 4], 3) == [4, 4, 4]


def test_longer_matches_are_of_another_kind():
    rng = np.random.default_rng(1)
    text = rng.integers(0, 2000, 200).tolist()
    kinds = []
    for length in (2, 3, 4, 8, 9, 24, 100):
        kinds.append(Lookup().propose([*text, *text[50 : 50 + length]]).kind)

    assert kinds == [f"match of {n}" for n in (2, 3, 5, 8, 16, 24, 24)]


def test_a_growing_text_is_read_once_and_gives_what_a_new_reader_gives():
    rng = np.random.default_rng(2)
    text = rng.integers(0, 6, 3000).tolist()
    lookup, log = Lookup(), TokenLog()
    for start in range(0, 3000, 37):
        log = log.appended(text[start : start + 37])
        own, fresh = lookup.propose(log), Lookup().propose(log)
        assert (own is None) == (fresh is None)
        if own is not None:
            assert (own.kind, own.first, own.draft(9)) == (fresh.kind, fresh.first, fresh.draft(9))


def test_it_finds_what_a_plain_search_finds():
    def plain(ids):
        best = None
        for end in range(1, len(ids)):
            length = 0
            while length < min(end, 24) and ids[end - 1 - length] == ids[len(ids) - 1 - length]:
                length += 1
            if length >= LEAST_MATCH and (best is None or length >= best[1]):
                best = (end, length)
        return None if best is None else ids[best[0]]

    rng = np.random.default_rng(3)
    for _ in range(300):
        ids = rng.integers(0, 4, int(rng.integers(1, 60))).tolist()
        offer = Lookup().propose(ids)
        assert (None if offer is None else offer.first) == plain(ids)
