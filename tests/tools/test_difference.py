"""The diff for the screen is what `git apply` takes, however long the files are."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds4_agent.tools.difference import unified

LONG = "".join(f"line {n}\n" for n in range(60_000))


def applied(root: Path, before: str, after: str) -> str:
    (root / "a.txt").write_bytes(before.encode())
    diff = unified("a.txt", before, after)
    subprocess.run(
        ["git", "apply", "--unidiff-zero", "-"], input=diff.encode(), cwd=root, check=True
    )
    return (root / "a.txt").read_bytes().decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\nb\nc\n", "a\nB\nc\n"),
        ("a\nb", "a\nc"),
        ("a\n", "a"),
        ("a\r\nb\r\n", "a\r\nc\r\n"),
        ("a\x0cb\u2028c\n", "a\x0cb\u2028d\n"),
        (LONG, LONG.replace("line 30000\n", "changed\n")),
        (LONG, LONG.replace("line 10\n", "").replace("line 900\n", "x\ny\n")),
    ],
)
def test_it_applies(root: Path, before: str, after: str) -> None:
    assert applied(root, before, after) == after


def test_equal_texts_have_none() -> None:
    assert unified("a", "x\n", "x\n") == ""


def test_two_far_places_of_a_long_file_take_no_long_time() -> None:
    after = LONG.replace("line 7\n", "x\n").replace("line 59990\n", "y\n")
    started = time.process_time()
    assert "+x\n" in unified("a.txt", LONG, after)
    assert time.process_time() - started < 1


LINES = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=12).map("\n".join)


@given(LINES, LINES)
def test_counts_in_the_header_are_right(before: str, after: str) -> None:
    diff = unified("a", before, after)
    if before == after:
        assert diff == ""
        return
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE)[1:]:
        old = [line[1:] for line in hunk.split("\n") if line[:1] in (" ", "-")]
        new = [line[1:] for line in hunk.split("\n") if line[:1] in (" ", "+")]
        assert "\n".join(old) in before + "\n"
        assert "\n".join(new) in after + "\n"
