"""Tools of the user's own: found, loaded, checked, each fault told in one line.

In: directories that may be executed from, installed entry points, the names already taken. Out:
plugins sorted by name, and a Problem for each file that is none. Never raises for what a plugin
does, and executes nothing outside the directories it is given: whom to trust is decided above.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

from ds4_agent.tools.plugin_checks import PluginError
from ds4_agent.tools.plugin_executable import described, start_describing
from ds4_agent.tools.plugin_python import load_entry_point, load_python
from ds4_agent.tools.process import Job, Processes
from ds4_agent.tools.types import Tool

GROUP = "ds4_agent.tools"
SIZE_LIMIT = 4 * 1024 * 1024  # bytes of a Python file
# The tests beside plugins, and modules that plugins share.
NO_PLUGINS = ("test_", "conftest", "_", ".")


@dataclass(frozen=True)
class Plugin:
    """A tool and where it comes from: a file, or an installed package."""

    tool: Tool
    origin: str


@dataclass(frozen=True)
class Problem:
    """Why a file gives no tool, or not quite: where, what is wrong, what to do."""

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.fix}"


@dataclass(frozen=True)
class Plugins:
    """What was found. Sorted by name: the prompt depends on nothing else."""

    found: tuple[Plugin, ...] = ()
    problems: tuple[Problem, ...] = ()


def load_plugins(
    directories: Iterable[Path],
    entry_points: Iterable[EntryPoint],
    processes: Processes,
    taken: Iterable[str],
) -> Plugins:
    """Everything in these places. Of two tools with one name the first stays."""
    problems: list[Problem] = []
    files = [file for directory in directories for file in plugin_files(directory, problems)]
    loaded = load_files(files, processes)
    problems += loaded.problems
    found = list(loaded.found)
    for entry in entry_points:
        where = f"entry point {entry.name} of {entry.dist.name if entry.dist else 'a package'}"
        _collect(where, partial(load_entry_point, entry.load, where), found, problems)
    checked = without_duplicates(found, taken)
    return Plugins(checked.found, (*problems, *checked.problems))


def load_files(files: Iterable[Path], processes: Processes) -> Plugins:
    """The tools of these very files, whatever their names. Executables are asked all at once."""
    found: list[Plugin] = []
    problems: list[Problem] = []
    waiting: dict[Path, Job] = {}
    paths = list(files)
    for path in paths:
        if path.suffix != ".py":
            try:
                waiting[path] = start_describing(path, processes)
            except PluginError as error:
                problems.append(Problem(str(path), error.what, error.fix))
    for path in paths:
        if path in waiting:
            _collect(str(path), partial(_answer, path, waiting[path]), found, problems)
        elif path.suffix == ".py":
            _collect(str(path), partial(_load_python, path), found, problems)
    return Plugins(tuple(found), tuple(problems))


def without_duplicates(found: Iterable[Plugin], taken: Iterable[str]) -> Plugins:
    """Sorted by name, each name once and none that is taken; the others are problems."""
    problems: list[Problem] = []
    builtin = frozenset(taken)
    first: dict[str, Plugin] = {}
    for plugin in found:
        name = plugin.tool.name
        if name in builtin:
            what = f"the tool {name} is built in"
        elif name in first:
            what = f"there is a tool {name} already, of {first[name].origin}"
        else:
            first[name] = plugin
            continue
        problems.append(Problem(plugin.origin, what, "give it another name"))
    return Plugins(tuple(first[name] for name in sorted(first)), tuple(problems))


def plugin_files(directory: Path, problems: list[Problem] | None = None) -> list[Path]:
    """The files of a directory that should be tools, by name; a directory that is not there has
    none. What cannot be looked into is a problem."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if problems is not None:
            what = f"it cannot be read ({error.strerror})"
            problems.append(Problem(str(directory), what, "allow it to be read"))
        return []
    return [directory / name for name in names if _is_plugin(directory / name)]


def installed_entry_points(untrusted: Path) -> list[EntryPoint]:
    """Entry points of installed packages, by name.

    `untrusted` is the repository that is worked in: Python may have put it on its path (`python -m`
    does), and metadata lying there would name code of the repository. Environments inside of it
    count when this very Python runs from them.
    """
    home = Path(sys.prefix).resolve()
    places = [
        entry
        for entry in sys.path
        if os.path.isabs(entry) and not _lies_in_repository(Path(entry).resolve(), untrusted, home)
    ]
    found = [
        entry
        for distribution in distributions(path=places)
        for entry in distribution.entry_points
        if entry.group == GROUP
    ]
    once = {(entry.name, entry.value): entry for entry in reversed(found)}
    return [once[key] for key in sorted(once)]


def _lies_in_repository(place: Path, repository: Path, home: Path) -> bool:
    return place.is_relative_to(repository) and not (
        home.is_relative_to(repository) and place.is_relative_to(home)
    )


def _is_plugin(path: Path) -> bool:
    if path.name.startswith(NO_PLUGINS) or path.name.endswith(("~", "_test.py")):
        return False
    try:
        mode = path.stat().st_mode
    except OSError:
        return path.suffix == ".py"  # a broken link: loading it says what is wrong
    return stat.S_ISREG(mode) and (path.suffix == ".py" or os.access(path, os.X_OK))


def _answer(path: Path, job: Job) -> tuple[list[Tool], str]:
    return [described(path, job)], ""


def _load_python(path: Path) -> tuple[list[Tool], str]:
    return load_python(path, _source(path))


def _source(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            source = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise PluginError(
            f"it cannot be read ({error.strerror or error})", "correct or remove it"
        ) from error
    if len(source) > SIZE_LIMIT:
        raise PluginError(f"it has more than {SIZE_LIMIT:,} bytes", "a tool is a small file")
    return source


def _collect(
    where: str,
    load: Callable[[], tuple[Sequence[Tool], str]],
    found: list[Plugin],
    problems: list[Problem],
) -> None:
    try:
        tools, printed = load()
    except PluginError as error:
        problems.append(Problem(where, error.what, error.fix))
        return
    if printed:
        said = " ".join(printed.split())[:60]
        what = f"it prints while it is loaded ({said})"
        problems.append(Problem(where, what, "print inside the function only"))
    found += [Plugin(tool, where) for tool in tools]
