"""A hostile clone runs nothing: not for the prompt's facts, not by a tool, not by an undo.

`tests/tools/test_git_hostile.py` lays out every way for the git tool; here the whole agent works in
a repository whose own configuration and files name programs.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ds4_agent.agent.loop import Agent

EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}
HOOKS = ("pre-commit", "commit-msg", "post-checkout", "post-index-change", "reference-transaction")


@pytest.fixture
def flags(tmp_path: Path) -> Path:
    (tmp_path / "flags").mkdir()
    return tmp_path / "flags"


@pytest.fixture
def hostile(repo: Path, flags: Path) -> Path:
    """`repo` with traps; each leaves a flag when it is sprung."""

    def trap(name: str) -> str:
        program = repo / ".git" / f"trap-{name}"
        program.write_text(f"#!/bin/sh\ntouch {flags}/{name}\ncat\n")
        program.chmod(0o755)
        return str(program)

    settings = {
        "core.fsmonitor": trap("fsmonitor"),
        "core.pager": trap("pager"),
        "core.sshCommand": trap("ssh"),
        "diff.external": trap("diff"),
        "diff.evil.textconv": trap("textconv"),
        "filter.evil.clean": trap("clean"),
        "filter.evil.smudge": trap("smudge"),
        "commit.gpgSign": "true",
        "gpg.program": trap("gpg"),
        "alias.status": f"!{trap('alias')}",
    }
    (repo / ".gitattributes").write_text("*.py filter=evil diff=evil\n")
    for name, value in settings.items():
        subprocess.run(["git", "-C", str(repo), "config", name, value], check=True)
    for hook in HOOKS:
        link = repo / ".git/hooks" / hook
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(trap(hook))
    # What may be loaded only once the directory is trusted.
    (repo / ".ds4/tools").mkdir(parents=True)
    (repo / ".ds4/tools/evil.py").write_text(f"open({str(flags / 'plugin')!r}, 'w')\n")
    (repo / ".ds4/config.toml").write_text(f'approver = "touch {flags}/approver; echo allow"\n')
    (repo / "pytest.ini").write_text("[pytest]\n")
    (repo / "conftest.py").write_text(f"open({str(flags / 'conftest')!r}, 'w')\n")
    for flag in flags.iterdir():
        flag.unlink()
    return repo


def sprung(flags: Path) -> list[str]:
    return sorted(flag.name for flag in flags.iterdir())


def test_the_traps_are_real(hostile: Path, flags: Path) -> None:
    (hostile / "src/client.py").write_text("retries = 4\n")
    for command in ("status", "diff", "add .", "commit -m x", "checkout -b y"):
        subprocess.run(["git", *command.split()], cwd=hostile, capture_output=True)
    assert {"fsmonitor", "clean", "diff", "post-index-change"} <= set(sprung(flags))


def test_facts_tools_and_undo_run_nothing(
    make_agent: Callable[..., Agent], play: SimpleNamespace, hostile: Path, flags: Path
) -> None:
    actions = [{"action": "status"}, {"action": "diff"}, {"action": "log"}, {"action": "show"},
               {"action": "add", "path": "src"}, {"action": "commit", "message": "x"},
               {"action": "switch", "branch": "y", "revision": "HEAD"}]  # fmt: skip
    steps = [
        play.call("list"),
        play.call("search", pattern="retries"),
        play.call("edit", **EDIT),
        *(play.call("git", **arguments) for arguments in actions),
        play.say("ok"),
    ]
    agent = make_agent(*steps, prompt_profile="lean")
    assert sprung(flags) == [], "by the facts of the prompt"
    events = list(agent.run("go"))
    assert events[-1].text == "ok"
    assert sprung(flags) == [], "by a tool"
    agent.undo()
    assert "retries = 3" in (hostile / "src/client.py").read_text()
    assert sprung(flags) == [], "by an undo"


def test_the_undo_command_runs_nothing(
    ds4: Callable[..., SimpleNamespace], play: SimpleNamespace, hostile: Path, flags: Path
) -> None:
    assert ds4([play.call("edit", **EDIT), play.say("ok")], "-p", "go").code == 0
    assert ds4([], "--undo").code == 0
    assert "retries = 3" in (hostile / "src/client.py").read_text()
    assert sprung(flags) == []
