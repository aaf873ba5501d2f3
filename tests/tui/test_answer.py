"""Answers are rendered as they were written, whole or in pieces."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App
from textual.widgets import Markdown

from ds4_agent.agent.display import VisibleStream, visible
from ds4_agent.tui.answer import PART_LIMIT, AnswerMessage, answer_parser, split_part
from ds4_agent.tui.code import code_content, code_lines

ANSWER = """\
Replaced `a` with **b** in src/__init__.py.
Second line.

## What

1. one
2. two with <b>html</b> &amp; entity

```python
def f(x):
    return x  # ❤️
```

| a | b |
|---|---|
| 1 | 2 |

- last\r
- item
"""


def rendered(pieces: list[str]) -> list[str]:
    """The text of every block of the answer, in order."""
    answer = AnswerMessage()

    class Page(App[None]):
        def compose(self):
            yield answer

    async def play() -> list[str]:
        async with Page().run_test(size=(60, 60)) as pilot:
            for piece in pieces:
                await answer.add(piece)
            await answer.finish()
            await pilot.pause()
            strips = pilot.app.screen._compositor.render_strips()
            return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    return asyncio.run(play())


@pytest.mark.parametrize("size", [5, 60])
def test_streamed_equals_one_shot(size):
    pieces = [ANSWER[start : start + size] for start in range(0, len(ANSWER), size)]
    assert rendered(pieces) == rendered([ANSWER])


def test_nothing_of_an_answer_vanishes():
    text = "\n".join(rendered([ANSWER]))
    for piece in ("src/__init__.py.", "\n   Second line.", "<b>html</b> &amp; entity", "return x"):
        assert piece in text


def test_a_link_tells_where_it_goes_and_long_code_is_wrapped():
    line = "value = " + " + ".join(f"number_{n}" for n in range(12))
    text = "\n".join(rendered([f"[docs](http://a.b/c), <http://d.e>\n\n```python\n{line}\n```\n"]))
    assert "docs (http://a.b/c), http://d.e" in text
    assert text.count("http") == 2
    assert "number_11" in text


def test_blocks_are_one_blank_row_apart():
    text = "one\n\n# two\n\nthree\n\n- four\n- five\n\n> six\n\n```\nseven\n```\n\n1. eight\n"
    seen = rendered([text])
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    places = [next(row for row, line in enumerate(seen) if word in line) for word in words]
    assert places == [1, 3, 5, 7, 8, 10, 12, 14], "\n".join(seen)


def test_a_fence_without_a_language_is_plain_and_one_with_is_not():
    assert not code_content("def f(): pass").spans
    assert not code_content("def f(): pass", language="no such").spans
    for coloured in (code_content("def f(): pass", language="python"), code_content("x", path="")):
        assert str(coloured) in ("def f(): pass", "x")
    assert code_content("def f(): pass", path="src/a.py").spans


@given(
    st.text(alphabet="ab\"'#\n\t \\{}<$", max_size=80), st.sampled_from(["a.py", "b.sh", "c.html"])
)
def test_colours_change_no_character(text, path):
    assert code_content(text, path=path).plain == text
    assert "\n".join(line.plain for line in code_lines(text, path=path)) == text


@given(st.text(alphabet="ab_ <&;>", max_size=60))
def test_html_entities_and_underscores_are_literal(text):
    tokens = answer_parser().parse(f"x {text}")
    tokens = [child for token in tokens for child in token.children or [token]]
    words = "".join(token.content for token in tokens if not token.content.isspace())
    for mark in "ab_<&;":
        assert words.count(mark) == text.count(mark)


def test_long_answers_are_split_between_paragraphs_only():
    long = "word " * (PART_LIMIT // 5)
    assert split_part("", "short\n\ntext") == ("short\n\ntext", "")
    assert split_part(long, " more\n\nnext") == (" more", "next")
    assert split_part(long, " more") == (" more", "")
    fenced = f"```\n{long}"
    assert split_part(long + "\n", "\nnext") == ("", "next")
    assert split_part(long + "\n\n", "next") == ("", "next")
    assert split_part(fenced, "\n\nstill code\n") == ("\n\nstill code\n", "")


def test_a_long_answer_is_whole():
    paragraphs = [f"paragraph {number} " + "x" * 1000 for number in range(15)]
    answer = AnswerMessage()

    class Page(App[None]):
        def compose(self):
            yield answer

    async def play() -> str:
        async with Page().run_test() as pilot:
            for paragraph in paragraphs:
                await answer.add(paragraph + "\n")
                await answer.add("\n")
            await answer.finish()
            await pilot.pause()
            parts = pilot.app.query(Markdown)
            assert len(parts) > 1
            return "\n\n".join(part.source.strip() for part in parts)

    assert asyncio.run(play()) == "\n\n".join(paragraphs)


@given(st.lists(st.text(alphabet="a\r\n❤\ufe0f#\x1b\u200b", max_size=5)))
def test_pieces_are_made_visible_like_the_whole(pieces):
    stream = VisibleStream()
    shown = "".join(stream.feed(piece) for piece in pieces) + stream.finish()
    assert shown == visible("".join(pieces))
