"""Executables as tools: described by themselves, run in the workspace, ended when they must be."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from ds4_agent.tools.plugins import Plugins
from ds4_agent.tools.registry import RESULT_LIMIT
from ds4_agent.tools.types import ToolContext

PYTHON = f"#!{sys.executable}\n"
DESCRIPTION = '{"name": "shout", "description": "Shout a word.", "effect": "read", "parameters": '
DESCRIPTION += '{"type": "object", "properties": {"word": {"type": "string"}}, "required": []}}'


def only_problem(loaded: Plugins) -> str:
    (problem,) = loaded.problems
    line = str(problem)
    assert "\n" not in line
    return line


@pytest.fixture
def program(write: Callable[..., Path]) -> Callable[..., Path]:
    """An executable that describes itself as `shout`, and runs this body otherwise."""

    def make(body: str, description: str = DESCRIPTION) -> Path:
        head = "import json, os, sys, time\nif '--ds4-describe' in sys.argv:\n"
        head += f"    print({description!r}); sys.exit()\n"
        return write("shout", PYTHON + head + dedent(body))

    return make


def test_a_program_that_describes_itself_is_a_tool(program, load, call_plugin, root: Path) -> None:
    path = program(
        """
        print("warning", file=sys.stderr)
        print(os.getcwd(), json.load(sys.stdin)["word"].upper())
        """
    )
    (plugin,) = load().found
    assert (plugin.tool.signature(), plugin.tool.effect) == ("shout(word?)", "read")
    assert plugin.origin == str(path)
    assert call_plugin("shout", word="näh").content == f"{root.resolve()} NÄH"


def test_a_failing_program_is_an_error_with_what_it_said(program, call_plugin) -> None:
    program("print('half'); print('the reason', file=sys.stderr); sys.exit(3)")
    result = call_plugin("shout")
    assert result.is_error
    for words in ("shout ended with exit code 3", "half", "the reason"):
        assert words in result.content


def test_a_programs_flood_is_bounded(program, call_plugin) -> None:
    program("for _ in range(200): sys.stdout.write('x' * 100_000); sys.stderr.write('y' * 100_000)")
    content = call_plugin("shout").content
    assert len(content) < RESULT_LIMIT
    assert "left out" in content


def test_a_program_that_hangs_is_killed_with_its_group(
    program, call_plugin, root: Path, monkeypatch
) -> None:
    monkeypatch.setattr("ds4_agent.tools.plugin_executable.RUN_S", 0.5)
    program(
        """
        if os.fork() == 0:
            time.sleep(3)
            open("survivor", "w")
        time.sleep(30)
        """
    )
    began = time.monotonic()
    result = call_plugin("shout")
    assert time.monotonic() - began < 10
    assert "was stopped" in result.content
    time.sleep(3)
    assert not (root / "survivor").exists()


def test_what_a_program_said_before_it_hung_is_told(program, call_plugin, monkeypatch) -> None:
    monkeypatch.setattr("ds4_agent.tools.plugin_executable.RUN_S", 0.5)
    program("print('half', flush=True); print('the reason', file=sys.stderr); time.sleep(30)")
    content = call_plugin("shout").content
    for words in ("was stopped", "half", "the reason"):
        assert words in content


def test_a_program_ends_when_the_user_interrupts(
    program, call_plugin, context: ToolContext
) -> None:
    program("time.sleep(30)")
    threading.Timer(0.5, context.cancel.set).start()
    assert call_plugin("shout").content == "Error: interrupted"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\nexit 4\n", "exit code 4"),
        ("#!/no/such/interpreter\n", "exit code"),
        ("#!/bin/sh\necho hello\n", "is no JSON"),
        ("#!/bin/sh\necho '[1]'\n", "no name and description"),
        ("#!/bin/sh\nyes\n", "within"),
        ("#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x\n", "too long"),
    ],
)
def test_a_program_that_cannot_be_described_is_one_line(
    write, load, monkeypatch, text: str, words: str
) -> None:
    monkeypatch.setattr("ds4_agent.tools.plugin_executable.DESCRIBE_S", 1.0)
    write("broken", text)
    line = only_problem(load())
    assert words in line
    assert "broken" in line
    assert "--ds4-describe" in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"read"', '"harm"', "'harm'"),
        ('"shout"', '"../x"', "name"),
        ('"shout"', "5", "name"),
        ('"shout"', '"bash"', "built in"),
        ('"Shout a word."', '""', "no description"),
        ('"Shout a word."', '"\\ud800"', "JSON"),
        ('"string"', '"text"', "'text'"),
        ('{"type": "string"}', "5", "word"),
        ('{"type": "string"}', '{"type": "array", "items": true}', "word[]"),
        ('{"type": "string"}', '{"enum": 1}', "enum"),
        ('{"type": "string"}', '{"minimum": "a"}', "minimum"),
        ('"required": []', '"required": ["other"]', "'other'"),
        ('"type": "object"', '"type": "array"', "object"),
        ('"word"', '"a b"', "'a b'"),
        ('"effect"', '"efect"', "'efect'"),
    ],
)
def test_a_bad_description_is_one_line(program, load, old: str, new: str, words: str) -> None:
    program("", DESCRIPTION.replace(old, new))
    assert words in only_problem(load())


def test_a_program_without_parameters_need_not_say_so(program, call_plugin) -> None:
    program("print(sys.stdin.read())", '{"name": "shout", "description": "Shout."}')
    assert call_plugin("shout").content == "{}"
