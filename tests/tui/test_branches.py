"""Copies of sessions are listed below what they were copied from."""

from hypothesis import given
from hypothesis import strategies as st

from ds4_agent.sessions.summary import Summary
from ds4_agent.tui.branches import as_tree


def drawn(*pairs):
    sessions = [Summary(name, forked_from=parent) for name, parent in pairs]
    return [lines + summary.id for lines, summary in as_tree(sessions)]


def test_branches_stand_below_their_origin_newest_first():
    pairs = [("e", "b"), ("d", ""), ("c", "a"), ("b", "a"), ("a", ""), ("x", "gone")]
    assert drawn(*pairs) == ["d", "a", "├ c", "└ b", "  └ e", "x"]


def test_two_that_name_each_other_are_listed():
    assert drawn(("a", "b"), ("b", "a"), ("c", "c")) == ["c", "a", "b"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), unique_by=lambda pair: pair[0]))
def test_every_session_is_listed_once(pairs):
    sessions = [Summary(str(name), forked_from=str(parent)) for name, parent in pairs]
    assert sorted(s.id for _, s in as_tree(sessions)) == sorted(s.id for s in sessions)
