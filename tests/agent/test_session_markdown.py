"""An exported session reads well, and nothing that was said in it gets out of its place."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ds4_agent.agent.session_entries import entries
from ds4_agent.agent.session_markdown import markdown
from ds4_agent.sessions.summary import Summary

SESSION = Summary("20261122-070301-9f3a1c", "fix it", "/work/a", "nano", turns=1, tokens=2_100)
PIECES = [
    *("```", "~~~", "`", "``", "````", "<script>", "</details>", "<!--", "-->", "<a href=`x`>"),
    *("\n", "\n\n", " ", "  ", "    ", "\t", "- ", "1. ", "> ", "## Turn 9", "\\", "\r", "\x1b"),
    *("![x](http://e)", "[a]: <b>", "===", "---", "a", "|", "*", "&lt;", "py", "\u2028", "!["),
]
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def said(kind: str, text: str) -> list[dict[str, Any]]:
    """Records in which `text` is said in one way."""
    message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    use = {"type": "tool_use", "id": "c1", "name": text, "input": {text: text, "b": [text]}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": text, "is_error": False}
    records: dict[str, list[dict[str, Any]]] = {
        "prompt": [{"type": "prompt", "text": text}],
        "answer": [{"type": "assistant", "message": message}],
        "call": [
            {"type": "assistant", "message": {"content": [use]}},
            {"type": "user", "message": {"content": [result]}},
        ],
        "thinking": [
            {"type": "assistant", "message": {"content": [{"type": "thinking", "thinking": text}]}}
        ],
        "notice": [{"type": "engine", "event": "notice", "text": text}],
        "summary": [{"type": "engine", "event": "compacted", "summary": text}],
    }
    return records[kind]


def tokens(document: str) -> list[Token]:
    found = MarkdownIt("commonmark", {"html": True}).enable("table").parse(document)
    return [token for top in found for token in (top, *(top.children or ()))]


@example("answer", "- ```\n  ```\n<script>")  # a fence that only a list ends
@example("answer", " ```\n```\n<script>")
@example("answer", "```\n   ```\n<script>")
@example("answer", "# `\n <script> `\n")  # no code span reaches beyond its block
@example("answer", "a ` b\nc ` <script> ` d")  # but over the end of a line
@example("answer", "\\`<script>\\`")
@example("answer", "\\\\<script>")
@example("answer", "`\n\\\\<script>")
@example("answer", "```\nnever closed")
@example("call", "````\n</details>\n\n## Turn 9")
@given(st.sampled_from(["prompt", "answer", "call", "thinking", "notice", "summary"]), HOSTILE)
def test_what_was_said_stays_in_its_place(kind: str, text: str) -> None:
    before, after = said("prompt", "before"), said("prompt", "after")
    title = Summary("s", text, text, text)
    document = markdown(title, entries([*before, *said(kind, text), *after]), damaged=0)
    found = tokens(document)
    headings = [
        found[index + 1].content
        for index, token in enumerate(found)
        if token.type == "heading_open" and token.level == 0 and token.tag == "h2"
    ]
    assert headings == [f"Turn {turn + 1}" for turn in range(len(headings))]
    assert len(headings) == 3 if kind == "prompt" else 2
    raw = [token.content for token in found if token.type in ("html_block", "html_inline")]
    assert all(part.startswith(("<details><summary>", "</details>")) for part in raw), raw
    assert len(raw) == (2 if kind in ("call", "thinking") else 0)
    assert not any(token.type == "image" for token in found)
    assert "\x1b" not in document
    assert "\u2028" not in document


@given(st.text(alphabet="`a\n<~ ", max_size=30))
def test_results_are_whole(text: str) -> None:
    document = markdown(SESSION, entries(said("call", text)), damaged=0)
    fences = [token.content for token in tokens(document) if token.type == "fence"]
    assert fences[-1].rstrip("\n") == text.rstrip("\n")


def test_code_in_an_answer_is_left_as_it_is() -> None:
    text = "Use `List<String>`:\n\n```html\n<b>bold</b> ![x](y)\n```\n\nnot <b>"
    document = markdown(SESSION, entries(said("answer", text)), damaged=0)
    found = tokens(document)
    assert [token.content for token in found if token.type == "code_inline"] == ["List<String>"]
    assert [token.content for token in found if token.type == "fence"] == ["<b>bold</b> ![x](y)\n"]
    assert "not &lt;b>" in document


def test_a_session_reads_as_it_went() -> None:
    records = [
        *said("prompt", "fix the retries"),
        {
            "type": "assistant",
            "message": {
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "c1", "name": "bash", "input": {"command": "ls"}},
                    {
                        "type": "tool_use",
                        "id": "c2",
                        "name": "edit",
                        "input": {"path": "a.py", "old": "a\nb", "new": "c", "replace_all": True},
                    },
                ]
            },
        },
        {
            "type": "user",
            "message": {
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "a.py\n```\n"},
                ]
            },
        },
        {"type": "result", "subtype": "aborted", "stop_reason": "interrupted"},
        {"type": "of the future", "text": "?"},
    ]
    assert markdown(SESSION, entries(records), damaged=2) == (
        "# fix it\n\n"
        "- Session: 20261122-070301-9f3a1c\n- Directory: /work/a\n- Model: nano\n"
        "- Started: -\n- Last used: -\n- Turns: 1\n- Tokens: 2,100\n- Damaged lines: 2\n\n"
        "## Turn 1\n\n**You**\n\n> fix the retries\n\n**ds4-agent**\n\n> I look.\n\n"
        "<details><summary>bash ls (done)</summary>\n\n"
        "```text\ncommand: ls\n```\n\n````text\na.py\n```\n````\n\n</details>\n\n"
        "<details><summary>edit a.py (no result)</summary>\n\n"
        "```text\npath: a.py\nold:\na\nb\nnew: c\nreplace_all: true\n```\n\n</details>\n\n"
        "*interrupted*\n"
    )


def test_turns_are_numbered_as_the_conversation_counts_them() -> None:
    records = [*said("prompt", "a"), *said("prompt", "b"), {"type": "rewind", "turn": 2}]
    document = markdown(SESSION, entries([*records, *said("prompt", "c")]), damaged=0)
    assert "*gone back: turn 2 and what followed it are left*" in document
    turns = [line for line in document.splitlines() if line.startswith("## ")]
    assert turns == ["## Turn 1", "## Turn 2", "## Turn 2"]
