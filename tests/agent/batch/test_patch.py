"""A patch of a batch is what `git apply` needs, to the last byte."""

import random
import subprocess
from pathlib import Path

import pytest

from ds4_agent.agent.batch.patch import file_patch

CASES: dict[str, tuple[bytes | None, bytes]] = {
    "a line": (b"a\nb\nc\n", b"a\nB\nc\n"),
    "a new file": (None, b"one\ntwo\n"),
    "a new empty file": (None, b""),
    "emptied": (b"one\n", b""),
    "no line end": (b"a\nb", b"a\nc"),
    "a line end more": (b"a\nb", b"a\nb\n"),
    "a line end less": (b"a\nb\n", b"a\nb"),
    "CRLF": (b"a\r\nb\r\nc\r\n", b"a\r\nx\r\nc\r\n"),
    "latin-1": (b"caf\xe9\nx\n", b"caf\xe9\ny\n"),
    "a form feed": (b"a\x0cb\nc\n", b"a\x0cb\nd\n"),
    "two places": (b"a\n" * 30 + b"b\n" * 30, b"x\n" + b"a\n" * 29 + b"b\n" * 29 + b"y\n"),
    "all of a long file": (
        b"".join(b"line %d\n" % n for n in range(9000)),
        b"".join(b"other %d\n" % n for n in range(8000)),
    ),
}


def applied(tmp_path: Path, name: str, before: bytes | None, patch: bytes) -> bytes:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if before is not None:
        file.write_bytes(before)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], input=patch, cwd=tmp_path, check=True)
    return file.read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_git_applies_it(tmp_path: Path, case: str) -> None:
    before, after = CASES[case]
    patch = file_patch("src/file.py", before, after)
    assert applied(tmp_path, "src/file.py", before, patch.data) == after


@pytest.mark.parametrize("name", ["a b.py", 'q"uote.py', "täb\t.py", "back\\slash", "new\nline"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    patch = file_patch(name, b"1\n", b"2\n")
    assert applied(tmp_path, name, b"1\n", patch.data) == b"2\n"


def test_any_two_files(tmp_path: Path) -> None:
    dice = random.Random(7)
    for number in range(40):
        before = b"".join(dice.choice((b"a\n", b"b\n", b"c\n")) for _ in range(dice.randrange(60)))
        lines = before.splitlines(keepends=True)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(lines) + 1)
            lines[at : at + dice.randrange(3)] = [b"new\n"] * dice.randrange(3)
        after = b"".join(lines)
        if after != before:
            patch = file_patch("f", before, after)
            assert applied(tmp_path / str(number), "f", before, patch.data) == after


def test_the_counts_are_of_lines() -> None:
    patch = file_patch("f", b"a\nb\nc\n", b"a\nx\ny\nc\n")
    assert (patch.added, patch.removed) == (2, 1)
    assert file_patch("f", b"a", b"a").data == b""
