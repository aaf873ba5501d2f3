"""A workspace in a temporary directory, a context for tools, and git with its own identity."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from ds4_agent.tools.plugins import Plugins, load_plugins
from ds4_agent.tools.process import Processes
from ds4_agent.tools.registry import builtin_tools, execute
from ds4_agent.tools.types import ToolContext, ToolResult
from ds4_agent.tools.workspace import Workspace

Call = Callable[..., ToolResult]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the user's own: nothing of the machine's git configuration counts."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n"
    )
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "EMAIL", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    root.mkdir()
    return root


@pytest.fixture
def context(root: Path) -> Iterator[ToolContext]:
    with Processes() as processes:
        yield ToolContext(Workspace(root), processes)


@pytest.fixture
def call(context: ToolContext) -> Call:
    """Run a built-in tool by name, as the agent does."""

    def run(name: str, **arguments: object) -> ToolResult:
        return execute(builtin_tools(), name, arguments, context)

    return run


@pytest.fixture
def plain_git() -> Callable[..., str]:
    """git as a user would call it, outside of the product."""

    def run(directory: Path, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=directory, capture_output=True, text=True, check=True
        )
        return done.stdout

    return run


@pytest.fixture
def git_root(root: Path, plain_git: Callable[..., str]) -> Path:
    """The workspace as a repository with one commit of `a.txt`."""
    plain_git(root, "init", "--quiet")
    (root / "a.txt").write_text("one\ntwo\n")
    plain_git(root, "add", "a.txt")
    plain_git(root, "commit", "--quiet", "--message=first")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """`write(name, text)`: a file in the tools directory; executable unless it is Python."""

    def make(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(dedent(text))
        if path.suffix != ".py":
            path.chmod(0o700)
        return path

    return make


@pytest.fixture
def load(folder: Path, context: ToolContext) -> Callable[..., Plugins]:
    def run(taken: Iterable[str] = ("read", "bash")) -> Plugins:
        return load_plugins([folder], [], context.processes, taken)

    return run


@pytest.fixture
def call_plugin(load: Callable[..., Plugins], context: ToolContext) -> Callable[..., ToolResult]:
    """Run a plugin as the agent does, beside the built-in tools."""

    def run(name: str, **arguments: object) -> ToolResult:
        loaded = load()
        assert not loaded.problems, loaded.problems
        tools = (*builtin_tools(), *(plugin.tool for plugin in loaded.found))
        return execute(tools, name, arguments, context)

    return run
