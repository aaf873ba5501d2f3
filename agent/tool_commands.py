"""`ds4-agent tools list|new|check|run`: the tools of a run, and the making of one's own.

In: their arguments. Out: lines on stdout (JSON with `--json`), problems on stderr; the exit code.
Loads what a run in this directory would load, and nothing of a repository that is not trusted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.cli import Parser, add_common, options_from
from ds4_agent.agent.display import visible
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.printing import warn
from ds4_agent.agent.toolbox import PROJECT_TOOLS, gather_toolbox, tool_directories
from ds4_agent.agent.trust import TrustError, is_trusted, repository_of, trust

if TYPE_CHECKING:
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.agent.toolbox import Toolbox
    from ds4_agent.tools.plugins import Plugin
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.types import Tool

__all__ = ["run_tools"]

USAGE = """\
ds4-agent tools list [--json]
       ds4-agent tools new NAME [--project]
       ds4-agent tools check [FILE …] [--json]
       ds4-agent tools run NAME [JSON]"""


def run_tools(arguments: Sequence[str]) -> int:
    """Run `ds4-agent tools …`. Raises UsageError."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "new": _new,
        "check": _check,
        "run": _run,
    }
    parser = Parser(prog="ds4-agent tools", usage=USAGE, allow_abbrev=False)
    parser.add_argument("action", choices=list(actions), metavar="|".join(actions))
    parser.add_argument("words", nargs="*", metavar="NAME|FILE|JSON")
    parser.add_argument("--json", action="store_true", help="machine-readable (list, check)")
    parser.add_argument("--project", action="store_true", help="new: in this repository")
    parser.add_argument("--trust", action="store_true", help="trust this repository from now on")
    add_common(parser)
    chosen = parser.parse_intermixed_args(arguments)
    return actions[chosen.action](chosen)


def _list(chosen: argparse.Namespace) -> int:
    """Every tool the model has here, where it comes from and what it costs in the prompt."""
    from ds4_agent.tools.process import Processes

    _take(chosen.words, 0, 0, "list")
    with Processes() as processes:
        toolbox = _toolbox(options_from(chosen, is_headless=True), processes)
    origins = {plugin.tool.name: plugin.origin for plugin in toolbox.plugins}
    tokens = _token_counter()
    listed = [
        {
            **tool.schema(),
            "effect": tool.effect,
            "origin": origins.get(tool.name, "built-in"),
            "tokens": tokens(tool),
        }
        for tool in toolbox.tools
    ]
    if chosen.json:
        print(json.dumps(listed, indent=2))
    else:
        for tool, entry in zip(toolbox.tools, listed, strict=True):
            print(f"{tool.effect:<8} {visible(tool.signature())}  ({entry['tokens']} tokens)")
            print(f"{'':<8} {visible(tool.description)}")
            if tool.name in origins:
                print(f"{'':<8} from {visible(origins[tool.name])}")
    for notice in toolbox.notices:
        warn(notice)
    return 0


def _new(chosen: argparse.Namespace) -> int:
    from ds4_agent.tools.plugin_template import write_plugin
    from ds4_agent.tools.registry import builtin_tools, task_tool
    from ds4_agent.tools.types import ToolError

    (name,) = _take(chosen.words, 1, 1, "new NAME")
    options = options_from(chosen, is_headless=True)
    if name in {tool.name for tool in (*builtin_tools(), task_tool())}:
        raise UsageError(f"the tool {name} is built in; choose another name")
    repository = repository_of(options.directory)
    directory = repository / PROJECT_TOOLS if chosen.project else options.places.tools
    try:
        file, test = write_plugin(name, directory)
    except ToolError as error:
        raise UsageError(str(error)) from error
    print(f"{visible(os.fspath(file))}\n{visible(os.fspath(test))}")
    if directory not in _loaded_directories(options):
        warn("it is loaded once this repository is trusted: ds4-agent --trust")
    return 0


def _check(chosen: argparse.Namespace) -> int:
    """What is wrong with each file, or with every plugin there is. Exit code 1 on problems."""
    from ds4_agent.tools.process import Processes

    options = options_from(chosen, is_headless=True)
    with Processes() as processes:
        if chosen.words:
            found, problems = _check_files(chosen.words, options, processes)
        else:
            toolbox = _toolbox(options, processes)
            found, problems = list(toolbox.plugins), toolbox.notices
    tokens = _token_counter()
    if chosen.json:
        good = [
            {"tool": plugin.tool.name, "origin": plugin.origin, "tokens": tokens(plugin.tool)}
            for plugin in found
        ]
        print(json.dumps({"tools": good, "problems": problems}, indent=2))
    else:
        for plugin in found:
            words = f"{plugin.tool.signature()}  ({tokens(plugin.tool)} tokens)"
            print(f"{visible(plugin.origin)}: {visible(words)}")
        for problem in problems:
            warn(problem)
    return 1 if problems else 0


def _check_files(
    words: Sequence[str], options: RunOptions, processes: Processes
) -> tuple[list[Plugin], list[str]]:
    """The plugins of these files; one of an untrusted repository is not executed to look at it."""
    from ds4_agent.tools.plugins import load_files
    from ds4_agent.tools.registry import builtin_tools, task_tool

    problems: list[str] = []
    files = []
    for word in words:
        path = Path(os.path.abspath(options.directory / Path(word).expanduser()))
        reason = _why_not(path, options)
        if reason:
            problems.append(f"{path}: {reason}")
        else:
            files.append(path)
    loaded = load_files(files, processes)
    builtin = {tool.name for tool in (*builtin_tools(), task_tool())}
    for plugin in loaded.found:
        if plugin.tool.name in builtin:
            what = f"the tool {plugin.tool.name} is built in; give it another name"
            problems.append(f"{plugin.origin}: {what}")
    return list(loaded.found), [*problems, *map(str, loaded.problems)]


def _why_not(path: Path, options: RunOptions) -> str:
    """Why a named file is not loaded, "" if it is."""
    if not path.is_file():
        return "there is no such file"
    if path.suffix != ".py" and not os.access(path, os.X_OK):
        return "it is neither a .py file nor executable; name it .py or make it executable"
    repository = repository_of(path.parent)
    if not path.resolve().is_relative_to(repository / PROJECT_TOOLS):
        return ""  # a file of the user's own that was named: it may run
    try:
        if options.trusts and repository == repository_of(options.directory):
            trust(repository, options.places.trusted_file)
            return ""
        if is_trusted(repository, options.places.trusted_file):
            return ""
    except TrustError as error:
        return str(error)
    return "this repository is not trusted; look at the file, then add --trust"


def _run(chosen: argparse.Namespace) -> int:
    """One call of one tool, by the user: nobody is asked. Exit code 1 when it fails."""
    import threading

    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.registry import execute
    from ds4_agent.tools.types import ToolContext
    from ds4_agent.tools.workspace import Workspace

    name, *rest = _take(chosen.words, 1, 2, "run NAME [JSON]")
    try:
        arguments = json.loads(rest[0]) if rest else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the arguments are no JSON ({error})") from error
    options = options_from(chosen, is_headless=True)
    with Processes() as processes:
        toolbox = _toolbox(options, processes)
        if name not in {tool.name for tool in toolbox.tools}:
            for notice in toolbox.notices:
                warn(notice)
            raise UsageError(f"there is no tool {name}; see ds4-agent tools list")
        workspace = Workspace(options.directory)
        context = ToolContext(workspace, processes, threading.Event(), _progress)
        result = execute(toolbox.tools, name, arguments, context)
    if result.is_error:
        print(visible(result.content), file=sys.stderr)
        return 1
    print(visible(result.content) if sys.stdout.isatty() else result.content)
    return 0


def _progress(text: str) -> None:
    print(visible(text), end="", file=sys.stderr, flush=True)


def _toolbox(options: RunOptions, processes: Processes) -> Toolbox:
    toolbox = gather_toolbox(options.directory, options.places, processes, trusts=options.trusts)
    return toolbox.with_task


def _loaded_directories(options: RunOptions) -> list[Path]:
    return tool_directories(
        options.directory, options.places, lambda _: None, trusts=options.trusts
    )


def _take(words: Sequence[str], least: int, most: int, usage: str) -> list[str]:
    if not least <= len(words) <= most:
        raise UsageError(f"write ds4-agent tools {usage}")
    return list(words)


def _token_counter() -> Callable[[Tool], int]:
    """What a tool's schema costs in a prompt, by the bundled model's tokenizer."""
    from ds4_agent.engine.dsml.tokenizer import Tokenizer
    from ds4_agent.engine.open import NANO

    tokenizer = Tokenizer.from_file(NANO / "tokenizer.json")
    return lambda tool: len(
        tokenizer.encode_data(json.dumps(tool.schema(), ensure_ascii=False) + "\n")
    )
