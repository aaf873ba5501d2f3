"""The handbook: its size, its sameness everywhere, and that every example does what it shows."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.agent.prompt.facts import Facts
from ds4_agent.agent.prompt.handbook import chapter_sources, chapters, parse_calls
from ds4_agent.agent.prompt.profile import render_prompt, sections
from ds4_agent.engine.dsml.encode import call_segments
from ds4_agent.engine.dsml.parse import Parser
from ds4_agent.engine.dsml.segments import EOS, Segment, markup, spell
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.tools.process import Processes
from ds4_agent.tools.registry import builtin_tools, execute
from ds4_agent.tools.schema import validate
from ds4_agent.tools.types import ToolContext
from ds4_agent.tools.workspace import Workspace

CLIENT = '''"""Talks to the price server."""

import time
from urllib.error import URLError

from shop.transport import get

RETRIES = 3
TIMEOUT = 10.0


def fetch(path, timeout=TIMEOUT):
    """The body of `path`; tried RETRIES times."""
    for attempt in range(RETRIES):
        try:
            return get(path, timeout)
        except URLError:
            time.sleep(2**attempt)
    raise ConnectionError(f"no answer for {path}")


def fetch_all(paths):
    """The bodies of `paths`, in order."""
    return [fetch(path) for path in paths]
'''
TRANSPORT = '''"""HTTP, as little of it as is needed."""

from urllib.request import urlopen


def get(path, timeout):
    with urlopen(f"http://prices.invalid/{path}", timeout=timeout) as answer:
        return answer.read()
'''
TEST_CLIENT = """import unittest

from shop.client import RETRIES


class TestClient(unittest.TestCase):
    def test_it_tries_three_times(self):
        self.assertEqual(RETRIES, 3)
"""
MAKEFILE = """\
test:
\t@PYTHONPATH=src python3 -m unittest -q tests.test_client

watch:
\t@sleep 300
"""
REPOSITORY = {
    ".gitignore": "build/\n",
    "CHANGES.md": "# Changes\n\n" + "- A change.\n" * 80,
    "Makefile": MAKEFILE,
    "src/shop/__init__.py": "",
    "src/shop/client.py": CLIENT,
    "src/shop/transport.py": TRANSPORT,
    "tests/__init__.py": "",
    "tests/test_client.py": TEST_CLIENT,
    "build/out.txt": "made\n",
}
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
COMMIT_ID = re.compile(r"\b[0-9a-f]{7}\b")
EXAMPLE = re.compile(r"^```(call|result)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"<｜DSML｜tool_calls>\n.*?</｜DSML｜tool_calls>", re.DOTALL)
SOMEWHERE = Facts(tests="make test", directory="/a", branch="main", date="2026-01-01")


def make_repository(root: Path) -> Path:
    for name, text in REPOSITORY.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run([*GIT, "-C", str(root), *arguments], check=True)
    for name, value in (("user.name", "a"), ("user.email", "a@b")):
        subprocess.run(["git", "-C", str(root), "config", name, value], check=True)
    return root


def examples(source: str) -> Iterator[tuple[str, str]]:
    """(`call` or `result`, what stands in the fence) of a chapter, in order."""
    return ((match[1], match[2]) for match in EXAMPLE.finditer(source))


def played(source: str, root: Path) -> Iterator[tuple[str, str]]:
    """(shown, real) of each result in a chapter: its calls are run in order in one repository."""
    owed: list[str] = []
    with Processes() as processes:
        context = ToolContext(Workspace(root), processes, threading.Event())
        for kind, text in examples(source):
            if kind == "result":
                yield text.removesuffix("\n"), owed.pop(0)
                continue
            owed = [
                execute(builtin_tools(), call.name, call.arguments, context).content
                for call in parse_calls(text)
            ]


CHAPTERS = dict(chapter_sources())


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_results_shown_are_those_the_tools_give(name: str, tmp_path: Path) -> None:
    for shown, real in played(CHAPTERS[name], make_repository(tmp_path / "shop")):
        assert COMMIT_ID.sub("0000000", shown) == COMMIT_ID.sub("0000000", real)
