"""Sees at the start of a turn that the user's own plugins changed, and loads what did.

In: the tools of the run so far. Out: those from now on, and what the model and the user are told.
Looks at the user's `tools/` directory only: what lies in the workspace the model may write itself,
and writing a file must not become running it. A changed file that is broken leaves its tools as
they were.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds4_agent.agent.toolbox import Toolbox
    from ds4_agent.tools.plugins import Plugin
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.types import Tool

__all__ = ["Changed", "PluginWatch", "Stamps", "announcement", "changed_tools", "stamps_of"]

Stamps = Mapping[Path, tuple[int, ...]]


@dataclass(frozen=True)
class Changed:
    """`tools` are all from now on; `new` are those the model has not read the description of."""

    tools: tuple[Tool, ...]
    new: tuple[Tool, ...]
    gone: tuple[str, ...]
    notices: tuple[str, ...]


class PluginWatch:
    """The plugins of one run as they are now. `look` is called between turns only."""

    def __init__(self, directory: Path, toolbox: Toolbox, processes: Processes) -> None:
        self._directory = directory
        self._stamps = toolbox.stamps
        self._processes = processes
        self._plugins = toolbox.plugins
        self._builtin = toolbox.tools[: len(toolbox.tools) - len(toolbox.plugins)]

    def look(self) -> Changed | None:
        """What changed since the last look; None for nothing. Costs a few `stat` calls then."""
        from ds4_agent.tools.plugins import load_files, without_duplicates

        stamps = stamps_of(self._directory)
        if stamps == self._stamps:
            return None
        touched = [path for path, stamp in stamps.items() if self._stamps.get(path) != stamp]
        removed = {str(path) for path in self._stamps.keys() - stamps.keys()}
        self._stamps = stamps
        loaded = load_files(touched, self._processes)
        renewed = {plugin.origin for plugin in loaded.found}
        kept = [p for p in self._plugins if p.origin not in renewed | removed]
        checked = without_duplicates([*kept, *loaded.found], [tool.name for tool in self._builtin])
        problems = (*loaded.problems, *checked.problems)
        tools, new, gone = self._compared(checked.found)
        self._plugins = checked.found
        told = _told(checked.found, renewed, gone)
        return Changed(tools, new, gone, (*told, *map(str, problems)))

    def _compared(
        self, found: Sequence[Plugin]
    ) -> tuple[tuple[Tool, ...], tuple[Tool, ...], tuple[str, ...]]:
        known = {plugin.tool.name: plugin.tool.schema() for plugin in self._plugins}
        tools = tuple(plugin.tool for plugin in found)
        new = tuple(tool for tool in tools if known.get(tool.name) != tool.schema())
        gone = tuple(sorted(known.keys() - {tool.name for tool in tools}))
        return (*self._builtin, *tools), new, gone


def changed_tools(
    known: Mapping[str, Mapping[str, object]] | None, tools: Sequence[Tool]
) -> Changed | None:
    """What is new to a model that was told of the schemas `known` (None: of all there are); None
    where nothing is."""
    if known is None:
        return None
    new = tuple(tool for tool in tools if known.get(tool.name) != tool.schema())
    gone = tuple(sorted(known.keys() - {tool.name for tool in tools}))
    if not new and not gone:
        return None
    told = [f"new since then: {', '.join(tool.name for tool in new)}"] if new else []
    told += [f"gone since then: {', '.join(gone)}"] if gone else []
    return Changed(tuple(tools), new, gone, tuple(f"tools {line}" for line in told))


def stamps_of(directory: Path) -> Stamps:
    """What tells one state of the directory's plugin files from another, without reading them."""
    from ds4_agent.tools.plugins import plugin_files

    stamps: dict[Path, tuple[int, ...]] = {}
    for path in plugin_files(directory):
        try:
            found = os.stat(path)
        except OSError:  # a broken link, or removed since it was listed
            stamps[path] = ()
        else:
            stamps[path] = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
    return stamps


def announcement(changed: Changed, *, with_schemas: bool) -> str:
    """What the model reads about it before the next prompt; "" where it has nothing to learn."""
    said = []
    if changed.new:
        described = [
            json.dumps(tool.schema(), ensure_ascii=False) if with_schemas else tool.signature()
            for tool in changed.new
        ]
        said.append("\n".join(["From now on these tools can be called as well:", *described]))
    if changed.gone:
        said.append(f"These tools are gone: {', '.join(changed.gone)}")
    return "\n\n".join(said)


def _told(found: Sequence[Plugin], renewed: set[str], gone: Sequence[str]) -> list[str]:
    names = [plugin.tool.name for plugin in found if plugin.origin in renewed]
    told = [f"tools loaded: {', '.join(names)}"] if names else []
    return [*told, f"tools gone: {', '.join(gone)}"] if gone else told
