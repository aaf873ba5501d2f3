"""A row of the list that a session is chosen from."""

from ds4_agent.sessions.summary import Summary
from ds4_agent.tui.commands import session_rows


def test_a_row_says_how_long_it_takes_where_that_is_known() -> None:
    tree = [("", Summary("a", "fix it", tokens=1200)), ("", Summary("b", "more", tokens=40))]
    known, unknown = session_rows(tree, {"a": 0.2, "b": None}, now=0.0)
    assert " · ~0.2 s to resume · " in known
    assert "resume" not in unknown
