"""The errors the handbook quotes are those the tools and the agent give, word for word."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.calls import INTERRUPTED_MIDWAY
from ds4_agent.agent.prompt.handbook import chapters
from ds4_agent.engine.dsml.segments import spell
from ds4_agent.tools.process import Processes
from ds4_agent.tools.registry import builtin_tools, execute
from ds4_agent.tools.types import Tool, ToolContext
from ds4_agent.tools.workspace import Workspace

QUOTED = re.compile(r"`(Error: [^`]+)`")
# In a quotation: a word in capitals is any name, `…` anything, a number any number.
LOOSE = re.compile(r"\b[A-Z]{4,}\b|…|\d+")

Call = tuple[str, dict[str, Any]]
WRONG_CALLS: list[Call] = [
    ("grep", {}),
    ("bash", {"command": "true", "timeout": "300"}),
    ("bash", {"command": "true", "timeout": 120_000}),
    ("edit", {"path": "a.py", "old": "x", "text": "y"}),
    ("edit", {"path": "a.py", "old": "x"}),
    ("search", {"pattern": "x", "mode": "fuzzy"}),
    ("read", {"path": "src/b.py"}),
    ("read", {"path": "nothing/like/it"}),
    ("read", {"path": "sub"}),
    ("read", {"path": "a.py", "start_line": 30}),
    ("read", {"path": "binary"}),
    ("read", {"path": "huge"}),
    ("read", {"path": "../elsewhere"}),
    ("edit", {"path": "a.py", "old": "def fetchh(", "new": "def get("}),
    ("edit", {"path": "a.py", "old": "fetch", "new": "get", "whole_word": True}),
    ("edit", {"path": "a.py", "old": "path", "new": "place"}),
    ("edit", {"path": "a.py", "old": "path", "new": "path"}),
    ("edit", {"path": "a.py", "old": "", "new": "path"}),
    ("edit", {"path": "changed.py", "old": "one", "new": "three"}),
    ("edit", {"path": "fixed.py", "old": "one", "new": "three"}),
    ("edit", {"path": "linked.py", "old": "one", "new": "three"}),
    ("write", {"path": ".git/config", "content": ""}),
    ("search", {"pattern": "a\nb"}),
    ("bash_status", {"job": 1}),
    ("git", {"action": "switch", "branch": "no-such"}),
    ("git", {"action": "commit", "message": "m"}),
    ("broken", {}),
]


@pytest.fixture
def place(repo: Path) -> Path:
    """A repository with a file for each thing that can be wrong with one."""
    (repo / "a.py").write_text("def fetch_all(path):\n    return path\n\n\nfetch_one = fetch_all\n")
    (repo / "sub").mkdir()
    (repo / "sub/b.py").write_text("one\n")
    (repo / "binary").write_bytes(b"\0" * 20)
    with (repo / "huge").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    for name in ("changed.py", "fixed.py", "linked.py"):
        (repo / name).write_text("one\n")
    (repo / "fixed.py").chmod(0o444)
    (repo / "other.py").hardlink_to(repo / "linked.py")
    return repo


def tool_errors(place: Path) -> list[str]:
    def broken(_context: ToolContext) -> str:
        raise RuntimeError("nobody is at home")

    parameters = {"type": "object", "properties": {}, "required": []}
    tools = (*builtin_tools(), Tool("broken", "Fails.", parameters, "read", broken))
    with Processes() as processes:
        context = ToolContext(Workspace(place), processes, threading.Event())

        def run(name: str, arguments: dict[str, Any]) -> str:
            return execute(tools, name, arguments, context).content

        run("read", {"path": "changed.py"})
        (place / "changed.py").write_text("one\ntwo\n")
        errors = [run(name, arguments) for name, arguments in WRONG_CALLS]
        (place / "changed.py").write_text("three\n")
        errors.append(run("write", {"path": "changed.py", "content": ""}))
        for _ in range(2):
            run("bash", {"command": "true", "background": True})
        errors.append(run("bash_status", {"job": 7}))
        run("git", {"action": "add", "path": "."})
        run("git", {"action": "stash"})
        errors.append(run("git", {"action": "commit", "message": "m"}))
    return errors


class Refuses:
    def decide(self, request: ev.ApprovalRequest) -> ev.Decision:
        return ev.Decision("deny", "not on a Friday")


def agent_errors(make_agent: Callable[..., Any], play: SimpleNamespace) -> list[str]:
    edit = play.call("write", path="new.py", content="x\n")
    read = play.call("read", path="src/client.py")
    done = play.say("Done.")
    agents = [
        make_agent(edit, done, permission_mode="ask", approver=Refuses()),
        make_agent(edit, done, permission_mode="plan"),
        make_agent(read, read, read, done),
        make_agent(play.call("task", prompt="x"), read, read, read, done, prompt_profile="lean"),
        make_agent({"text": "hm" + edit["text"]}, play.say("</think>Done."), think="low"),
        make_agent({"text": edit["text"][:-20], "finish": "length"}, done),
    ]
    events = [event for agent in agents for event in agent.run("go")]
    return [event.content for event in play.of_kind(events, ev.CallFinished)]


def as_pattern(quoted: str) -> str:
    """A quotation as a regular expression for what was really said."""
    parts, end = [], 0
    for loose in LOOSE.finditer(quoted):
        parts += [re.escape(quoted[end : loose.start()]), r"\d+" if loose[0].isdigit() else ".*"]
        end = loose.end()
    return "".join([*parts, re.escape(quoted[end:])])


def test_each_quoted_error_is_one_that_is_given(
    place: Path, make_agent: Callable[..., Any], play: SimpleNamespace
) -> None:
    given = [*tool_errors(place), *agent_errors(make_agent, play), INTERRUPTED_MIDWAY]
    quoted = [q for _, text in chapters() for q in QUOTED.findall(spell(text))]
    assert len(quoted) > 30
    missing = [
        error
        for error in quoted
        if not any(re.fullmatch(as_pattern(error), said, re.DOTALL) for said in given)
    ]
    assert missing == []
