"""The tools of a run: the built-in ones, then those of the user's own that may be loaded.

In: where the run is, and whether `--trust` was said. Out: the tools in the order of the prompt,
and what the user has to be told. Of a repository that is not trusted nothing is read but the names
in `.ds4/tools`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.reload import Stamps, stamps_of
from ds4_agent.agent.trust import TrustError, is_trusted, repository_of, trust

if TYPE_CHECKING:
    from ds4_agent.agent.places import Places
    from ds4_agent.tools.plugins import Plugin, Problem
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.types import Tool

__all__ = ["PROJECT_TOOLS", "Toolbox", "gather_toolbox", "tool_directories"]

PROJECT_TOOLS = Path(".ds4", "tools")


@dataclass(frozen=True)
class Toolbox:
    """`tools` in the order of the prompt; `plugins` are those of them that are not built in."""

    tools: tuple[Tool, ...]
    plugins: tuple[Plugin, ...] = ()
    problems: tuple[Problem, ...] = ()
    trust_notices: tuple[str, ...] = ()
    stamps: Stamps = field(default_factory=dict)  # of the user's own files, before they were loaded

    @property
    def with_task(self) -> Toolbox:
        """The same with the tool `task`, which comes after those that are built in."""
        from ds4_agent.tools.registry import task_tool

        builtin = len(self.tools) - len(self.plugins)
        tools = (*self.tools[:builtin], task_tool(), *self.tools[builtin:])
        return replace(self, tools=tools)

    @property
    def notices(self) -> list[str]:
        """One line each: what was not loaded, and why."""
        return [*self.trust_notices, *map(str, self.problems)]


def gather_toolbox(
    directory: Path, places: Places, processes: Processes, *, trusts: bool = False
) -> Toolbox:
    """Every tool this run may use. Takes as long as the plugins take to load."""
    from ds4_agent.tools.plugins import installed_entry_points, load_plugins
    from ds4_agent.tools.registry import builtin_tools, task_tool

    notices: list[str] = []
    directories = tool_directories(directory, places, notices.append, trusts=trusts)
    builtin = builtin_tools()
    stamps = stamps_of(places.tools)
    loaded = load_plugins(
        directories,
        installed_entry_points(repository_of(directory)),
        processes,
        [tool.name for tool in (*builtin, task_tool())],
    )
    tools = (*builtin, *(plugin.tool for plugin in loaded.found))
    return Toolbox(tools, loaded.found, loaded.problems, tuple(notices), stamps)


def tool_directories(
    directory: Path, places: Places, tell: Callable[[str], None], *, trusts: bool = False
) -> list[Path]:
    """The directories plugins may be loaded from: the user's, and the repository's if trusted.
    `trusts` makes it so from now on."""
    from ds4_agent.tools.plugins import plugin_files

    repository = repository_of(directory)
    project = repository / PROJECT_TOOLS
    if _may_run(repository, places.trusted_file, tell, trusts):
        return [places.tools, project]
    if plugin_files(project):
        tell(
            f"the tools in {project} are not loaded, since this repository is not trusted; "
            "look at them, then say so with ds4-agent --trust"
        )
    return [places.tools]


def _may_run(
    repository: Path, trusted_file: Path, tell: Callable[[str], None], trusts: bool
) -> bool:
    try:
        if trusts:
            trust(repository, trusted_file)
        return is_trusted(repository, trusted_file)
    except TrustError as error:
        tell(str(error))
        return trusts
