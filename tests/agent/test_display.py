"""The choke point lets nothing through that acts on a terminal or hides from the reader."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds4_agent.agent.display import has_hidden, one_line, visible

# Format characters with a glyph of their own: signs of Arabic, Syriac and Kaithi script.
VISIBLE_FORMAT = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2} | {
    0x110BD,
    0x110CD,
}
ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def acts(character: str) -> bool:
    return (
        character not in "\n\t"
        and unicodedata.category(character) in ACTING
        and ord(character) not in VISIBLE_FORMAT
    )


def test_every_control_and_format_character_of_unicode_is_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        if acts(chr(code)):
            shown = visible(f"a{chr(code)}b", exact=True)
            assert chr(code) not in shown
            assert len(shown) > 2, hex(code)


@given(st.text(alphabet=st.characters()))
def test_nothing_that_acts_comes_out(text: str) -> None:
    assert not any(acts(character) for character in visible(text))
    assert not any(acts(character) for character in visible(text, exact=True))
    assert visible(visible(text)) == visible(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï 漢字\n\ttext", "plain ünï 漢字\n\ttext"),
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("\x7f\x9b31m", "␡\\x9b31m"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("ze\u200bro", "ze\\u200bro"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("name\udcff.txt", "name\\xff.txt"),
        ("❤\ufe0f ok", "❤ ok"),
        ("a\ufe0f", "a\\ufe0f"),
        ("[red]not markup[/red]", "[red]not markup[/red]"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_exact_keeps_what_else_is_tidied() -> None:
    assert visible("a\r\nb❤\ufe0f", exact=True) == "a␍\nb❤\\ufe0f"


def test_hidden_is_noticed() -> None:
    assert has_hidden("rm \u202e-rf")
    assert not has_hidden("rm -rf\n\tx")


def test_one_line_is_one_line() -> None:
    assert one_line("a\nb\t c \x1b") == "a b c ␛"
    assert one_line("x" * 300, 10) == "x" * 9 + "…"
