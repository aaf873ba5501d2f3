"""A row of the list that a session is chosen from."""

from ds4_agent.sessions.summary import Summary
from ds4_agent.tui.commands import session_rows


def test_a_row_says_how_long_it_takes_where_that_is_known() -> None:
    tree = [("", Summary("a", "fix it", tokens=1200)), ("", Summary("b", "more", tokens=40))]
    known, unknown = session_rows(tree, {"a": 0.2, "b": None}, now=0.0)
    assert " · ~0.2 s to resume · " in known
    assert "resume" not in unknown


def test_a_long_title_leaves_its_figures_on_a_narrow_screen() -> None:
    (row,) = session_rows([("│ ├ ", Summary("a", "word " * 40, bytes=99_999))], {"a": 120}, now=0.0)
    assert "to resume" in row[:78]
    assert "KB" in row[:78]


def test_the_session_that_goes_on_says_so_instead() -> None:
    tree = [("", Summary("a", "fix it")), ("└ ", Summary("b", "more"))]
    here, other = session_rows(tree, {"a": 0.2, "b": 0.3}, now=0.0, here="a")
    assert " · you are here · " in here
    assert "resume" not in here
    assert "~0.3 s to resume" in other
