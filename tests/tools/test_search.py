"""search: the same text from ripgrep and from our own; nothing hangs; ignored files stay out."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ds4_agent.tools import search as search_module
from ds4_agent.tools.registry import builtin_tools, execute


@pytest.fixture
def tree(root: Path) -> Path:
    files = {
        "src/a.py": "import os\n\nretries = 3\n\n\ndef go():\n    return retries\n",
        "src/b.ts": "let retries = 1\r\n",
        "build/c.py": "retries\n",
        "docs/x.md": "no\nno\nretries\nretries\nno\nno\nno\nretries\n",
        ".hidden": "retries",
        "café.txt": "é retries (x+)\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(text.encode())
    (root / "bin").write_bytes(b"retries\0retries\n")
    (root / ".git").mkdir()
    (root / ".git/config").write_text("retries\n")
    (root / ".gitignore").write_text("build/\n")
    return root


@pytest.fixture(params=["own", "ripgrep"])
def find(request, tree, call, monkeypatch) -> Callable[..., str]:
    """search, by one and by the other."""
    if request.param == "own":
        monkeypatch.setattr(search_module, "with_ripgrep", lambda *_: None)
    elif shutil.which("rg") is None:
        pytest.skip("ripgrep is not installed")
    else:
        monkeypatch.setattr(search_module, "with_worker", None)
    return lambda pattern, **more: call("search", pattern=pattern, **more).content


def test_literal(find) -> None:
    assert find("retries") == (
        ".hidden:1: retries\n"
        "café.txt:1: é retries (x+)\n"
        "docs/x.md:3: retries\n"
        "docs/x.md:4: retries\n"
        "docs/x.md:8: retries\n"
        "src/a.py:3: retries = 3\n"
        "src/a.py:7:     return retries\n"
        "src/b.ts:1: let retries = 1\n"
        "8 matches in 5 files"
    )


def test_literal_takes_no_character_for_a_sign(find) -> None:
    assert find("(x+)") == "café.txt:1: é retries (x+)\n1 match in 1 file"
    assert find("-x") == "No matches for -x"


def test_regex(find) -> None:
    assert find(r"retries = \d$", mode="regex") == (
        "src/a.py:3: retries = 3\nsrc/b.ts:1: let retries = 1\n2 matches in 2 files"
    )


def test_path_of_a_directory_and_of_a_file(find) -> None:
    assert find("go", path="./src") == "src/a.py:6: def go():\n1 match in 1 file"
    assert find("go", path="src/a.py") == "src/a.py:6: def go():\n1 match in 1 file"
    assert find("retries", path="build") == "build/c.py:1: retries\n1 match in 1 file"


@pytest.mark.parametrize("glob", ["*.py", "src/*.py", "src/**/*.py", "**/a.*", "*.{py,rs}", "a.py"])
def test_glob(find, glob: str) -> None:
    assert find("go", glob=glob) == "src/a.py:6: def go():\n1 match in 1 file"


def test_glob_excludes_and_brings_nothing_ignored_back(find) -> None:
    assert find("retries =", glob="!*.py") == "src/b.ts:1: let retries = 1\n1 match in 1 file"
    assert "build" not in find("retries", glob="*.py")


def test_context(find) -> None:
    assert find("retries", path="docs", context=1) == (
        "docs/x.md-2- no\n"
        "docs/x.md:3: retries\n"
        "docs/x.md:4: retries\n"
        "docs/x.md-5- no\n"
        "--\n"
        "docs/x.md-7- no\n"
        "docs/x.md:8: retries\n"
        "3 matches in 1 file"
    )


def test_limit_is_said(find) -> None:
    assert find("retries", max_results=2) == (
        ".hidden:1: retries\ncafé.txt:1: é retries (x+)\n"
        "2 matches in 2 files; there are more: narrow the search or set max_results"
    )


def test_long_lines_are_cut_visibly(find, tree: Path) -> None:
    (tree / "long.txt").write_text("needle" + "x" * 10_000)
    first = find("needle").splitlines()[0]
    assert first == "long.txt:1: needle" + "x" * 394 + "…"


def test_nothing(find) -> None:
    assert find("nope") == "No matches for nope"


def test_pipes_and_links_are_left_alone(find, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    (tree / "loop").symlink_to(".")
    assert find("def go") == "src/a.py:6: def go():\n1 match in 1 file"


def test_a_pipe_that_is_named_is_refused(call, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    result = call("search", pattern="x", path="pipe")
    assert result.content == "Error: pipe is a named pipe, not a file"


def test_a_wrong_regular_expression_is_named(call, tree: Path) -> None:
    assert call("search", pattern="(", mode="regex").content.startswith(
        "Error: the regular expression is wrong: "
    )


@pytest.mark.parametrize(
    "arguments",
    [{"pattern": ""}, {"pattern": "a\nb"}, {"pattern": "a", "context": -1},
     {"pattern": "a", "max_results": 0}, {"pattern": "a", "path": "nope"},
     {"pattern": "a", "path": ".."}, {"pattern": "a", "mode": "glob"}],
)  # fmt: skip
def test_senseless_arguments(call, tree: Path, arguments: dict) -> None:
    assert call("search", **arguments).is_error


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_pattern_that_never_ends_is_stopped(call, context, root, monkeypatch, how) -> None:
    monkeypatch.setattr(search_module, "with_ripgrep", lambda *_: None)
    monkeypatch.setattr(search_module, "TIME_LIMIT_S", 1 if how == "timeout" else 60)
    (root / "a.txt").write_text("a" * 5000 + "b")
    if how == "cancel":
        threading.Timer(0.5, context.cancel.set).start()
    started = time.monotonic()
    result = call("search", pattern="(a+)+$", mode="regex")
    assert time.monotonic() - started < 10
    if how == "timeout":
        assert "stopped after 1 s" in result.content
    else:
        assert result.content == "Error: interrupted"


def test_ripgreps_own_configuration_is_not_used(root: Path, context, monkeypatch) -> None:
    """A ripgrep configuration can name a program to run on every file."""
    if shutil.which("rg") is None:
        pytest.skip("ripgrep is not installed")
    config = root / "rc"
    config.write_text(f"--pre\n{root}/evil\n")
    (root / "evil").write_text(f"#!/bin/sh\ntouch {root}/FLAG\n")
    (root / "evil").chmod(0o755)
    monkeypatch.setenv("RIPGREP_CONFIG_PATH", str(config))
    execute(builtin_tools(), "search", {"pattern": "x"}, context)
    assert not (root / "FLAG").exists()
