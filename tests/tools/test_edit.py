"""edit: exact and unique or refused, and nothing but the matches changes in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ds4_agent.tools.edit import find, replaced
from ds4_agent.tools.text import decode, encode

SOURCE = """import os

retries = 3
limit = 10


def go(retries):
    return retries_left(retries)
"""


@pytest.fixture
def source(root: Path) -> Path:
    path = root / "src/a.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def test_replaces_and_shows_the_lines_around(call, source: Path) -> None:
    result = call("edit", path="src/a.py", old="retries = 3", new="retries = 5")
    assert result.content == (
        "Edited src/a.py: 1 replacement, line 3\nimport os\n\nretries = 5\nlimit = 10"
    )
    assert source.read_text() == SOURCE.replace("= 3", "= 5")
    assert "-retries = 3\n+retries = 5\n" in result.diff


def test_many_replacements_name_ten_lines(call, root: Path) -> None:
    (root / "a.txt").write_text("x\n" * 12)
    result = call("edit", path="a.txt", old="x", new="y", replace_all=True)
    assert result.content.splitlines()[0] == (
        "Edited a.txt: 12 replacements, lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …"
    )


def test_ambiguous_old_is_refused_with_its_lines(call, source: Path) -> None:
    refused = call("edit", path="src/a.py", old="retries", new="tries")
    assert refused.is_error
    assert refused.content == (
        "Error: old text occurs 4 times in src/a.py (lines 3, 7, 8); "
        "give more of it or set replace_all"
    )
    assert source.read_text() == SOURCE


def test_whole_word_leaves_longer_identifiers(call, source: Path) -> None:
    result = call(
        "edit", path="src/a.py", old="retries", new="tries", replace_all=True, whole_word=True
    )
    assert result.content.startswith("Edited src/a.py: 3 replacements, lines 3, 7, 8\n")
    assert source.read_text() == SOURCE.replace("retries", "tries").replace(
        "tries_left", "retries_left"
    )


def test_whole_word_counts_unicode_letters_as_letters(call, root: Path) -> None:
    (root / "a.txt").write_text("año an “an”")
    call("edit", path="a.txt", old="an", new="the", whole_word=True, replace_all=True)
    assert (root / "a.txt").read_text() == "año the “the”"


def test_whole_word_says_where_it_is_only_a_part(call, source: Path) -> None:
    refused = call("edit", path="src/a.py", old="retr", new="x", whole_word=True)
    assert refused.content.startswith(
        "Error: old text not found in src/a.py as a whole word; it is part of a longer word in "
    )


def test_missing_old_names_the_nearest_line(call, source: Path) -> None:
    refused = call("edit", path="src/a.py", old="retries = 4", new="x")
    assert refused.content == (
        "Error: old text not found in src/a.py; the nearest is line 3: retries = 3"
    )
    refused = call("edit", path="src/a.py", old="%%%%%", new="x")
    assert refused.content == "Error: old text not found in src/a.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"old": "", "new": "x"}, "Error: old is empty; use write to create a file"),
        ({"old": "x", "new": "x"}, "Error: old and new are the same text"),
        ({"old": "limit", "new": "\ud800"}, "Error: new holds '\\ud800', which src/a.py cannot"),
    ],
)
def test_senseless_arguments(call, source: Path, arguments: dict, message: str) -> None:
    assert call("edit", path="src/a.py", **arguments).content.startswith(message)
    assert source.read_text() == SOURCE


def test_missing_file(call, source: Path) -> None:
    assert call("edit", path="src/b.py", old="a", new="b").content == (
        "Error: src/b.py does not exist; did you mean src/a.py?"
    )


def test_long_replacements_show_at_most_twelve_lines(call, source: Path) -> None:
    new = "\n".join(f"line {n}" for n in range(40))
    result = call("edit", path="src/a.py", old="limit = 10", new=new)
    assert len(result.content.splitlines()) == 13
    assert result.content.endswith("\n…")


@pytest.mark.parametrize("end", ["\r\n", ""])
def test_crlf_is_matched_by_lf_and_kept(call, root: Path, end: str) -> None:
    (root / "a.txt").write_bytes(f"one\r\ntwo\r\nthree{end}".encode())
    result = call("edit", path="a.txt", old="one\ntwo", new="1\n2\n2b")
    assert (root / "a.txt").read_bytes() == f"1\r\n2\r\n2b\r\nthree{end}".encode()
    assert "\r" not in result.content
    call("edit", path="a.txt", old="three", new="3\n4")  # a match without a line end of its own
    assert (root / "a.txt").read_bytes() == f"1\r\n2\r\n2b\r\n3\r\n4{end}".encode()


def test_mixed_line_ends_keep_each_their_own(call, root: Path) -> None:
    (root / "a.txt").write_bytes(b"a\nb\r\na\r\nb\n")
    call("edit", path="a.txt", old="a\nb", new="x\ny", replace_all=True)
    assert (root / "a.txt").read_bytes() == b"x\ny\r\nx\r\ny\n"


def test_lf_file_takes_what_is_given(call, root: Path) -> None:
    (root / "a.txt").write_bytes(b"a\nb\n")
    call("edit", path="a.txt", old="b", new="b\r\nc")
    assert (root / "a.txt").read_bytes() == b"a\nb\r\nc\n"


@pytest.mark.parametrize(
    ("data", "old", "new", "expected"),
    [
        (b"\xef\xbb\xbfx = 1\n", "x", "y", b"\xef\xbb\xbfy = 1\n"),
        ("x = 'é'".encode("utf-16"), "é", "ü", "x = 'ü'".encode("utf-16")),
        (b"caf\xe9 = 1", "café", "thé", b"th\xe9 = 1"),
        (
            b"far \xff away\nx = 'caf\xc3\xa9'\n",
            "café",
            "thé",
            b"far \xff away\nx = 'th\xc3\xa9'\n",
        ),
        (b"no end", "no", "an", b"an end"),
        (b"form\x0cfeed\x1cx\xe2\x80\xa8y\n", "x", "z", b"form\x0cfeed\x1cz\xe2\x80\xa8y\n"),
    ],
)
def test_bytes_outside_the_match_stay(call, root, data, old, new, expected) -> None:
    (root / "a.txt").write_bytes(data)
    assert not call("edit", path="a.txt", old=old, new=new).is_error
    assert (root / "a.txt").read_bytes() == expected


def test_a_character_the_encoding_lacks_is_refused(call, root: Path) -> None:
    (root / "a.txt").write_bytes(b"caf\xe9\n")
    refused = call("edit", path="a.txt", old="caf", new="→")
    assert refused.content == "Error: new holds '→', which a.txt cannot: it is cp1252"
    assert (root / "a.txt").read_bytes() == b"caf\xe9\n"


def test_mode_and_link_stay(call, root: Path) -> None:
    (root / "real.sh").write_text("echo hi\n")
    (root / "real.sh").chmod(0o755)
    (root / "link.sh").symlink_to("real.sh")
    call("edit", path="link.sh", old="hi", new="ho")
    assert (root / "link.sh").is_symlink()
    assert (root / "real.sh").read_text() == "echo ho\n"
    assert (root / "real.sh").stat().st_mode & 0o777 == 0o755


def test_binary_file_is_refused(call, root: Path) -> None:
    (root / "a.bin").write_bytes(b"a\0b")
    assert call("edit", path="a.bin", old="a", new="b").content == (
        "Error: a.bin is a binary file (3 bytes)"
    )


def test_a_change_since_the_read_is_refused_once_and_shown(call, source: Path) -> None:
    call("read", path="src/a.py")
    source.write_text(SOURCE.replace("import os", "import os\nimport re"))
    refused = call("edit", path="src/a.py", old="retries = 3", new="retries = 5")
    assert refused.content == (
        "Error: src/a.py changed since it was read and was not edited; lines 2-6 are now:\n"
        "import re\n\nretries = 3\nlimit = 10\n"
    )
    assert "retries = 3" in source.read_text()
    again = call("edit", path="src/a.py", old="retries = 3", new="retries = 5")
    assert again.content.startswith("Edited src/a.py: 1 replacement, line 4\n")


def test_an_edit_of_ones_own_is_no_change_by_others(call, source: Path) -> None:
    call("read", path="src/a.py")
    call("edit", path="src/a.py", old="retries = 3", new="retries = 5")
    assert not call("edit", path="src/a.py", old="limit = 10", new="limit = 11").is_error


def test_a_change_between_reading_and_renaming_is_seen(call, context, source, monkeypatch) -> None:
    write = type(context.workspace).write

    def late(self, place, data, *, base):
        source.write_text("theirs\n")  # somebody saves the file in this very moment
        write(self, place, data, base=base)

    monkeypatch.setattr(type(context.workspace), "write", late)
    refused = call("edit", path="src/a.py", old="retries = 3", new="retries = 5")
    assert refused.content == (
        "Error: src/a.py was changed by someone else just now; read it again"
    )
    assert source.read_text() == "theirs\n"
    assert [p.name for p in source.parent.iterdir()] == ["a.py"]


TEXTS = st.text(st.sampled_from("ab_é \n\r"), max_size=40)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=TEXTS, old=st.text(st.sampled_from("ab_é"), min_size=1, max_size=4), new=TEXTS)
def test_everything_around_the_matches_is_kept(before: str, old: str, new: str) -> None:
    text = decode(before.encode())
    assert text is not None
    spans = find(text, old)
    after = replaced(text, spans, new)
    pieces = before.split(old)
    assert len(pieces) == len(spans) + 1
    if text.newline == "\n":
        assert encode(text, after) == new.join(pieces).encode()
    position = 0
    for piece in pieces:
        position = after.index(piece, position) + len(piece)


@given(st.binary(max_size=60))
def test_decoding_loses_nothing(data: bytes) -> None:
    text = decode(data)
    if text is not None:
        assert encode(text, text.content) == data
