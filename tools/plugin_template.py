"""The files `ds4-agent tools new` writes: a tool that works, and a test of it beside it.

In: a name, a directory. Out: two new files. Never overwrites anything.
"""

from __future__ import annotations

import keyword
import os
from pathlib import Path
from string import Template

from ds4_agent.tools.plugin_checks import NAME
from ds4_agent.tools.plugins import NO_PLUGINS
from ds4_agent.tools.types import ToolError

TOOL = Template('''\
"""A tool for ds4-agent. The model reads the name, the type hints and the docstring below."""

from pathlib import Path

from ds4_agent import tool


# effect: "read" is never asked about; "edit" (changes files) and "execute" (anything else) are.
@tool(effect="read")
def $name(path: str = ".", marker: str = "TODO") -> str:
    """Count the lines that hold a marker in the Python files below a path.

    path: directory to look in
    marker: the word to count
    """
    files = Path(path).rglob("*.py")
    lines = (line for file in files for line in file.read_text(errors="replace").splitlines())
    return f"{sum(marker in line for line in lines)} lines with {marker}"
''')
TEST = Template('''\
"""`pytest $test`, in the environment that ds4-agent is installed in."""

import runpy
from pathlib import Path

$name = runpy.run_path(str(Path(__file__).with_name("$file")))["$name"]


def test_counts_the_lines_that_hold_the_marker(tmp_path):
    (tmp_path / "a.py").write_text("# TODO one\\nx = 1  # TODO two\\n")
    assert $name(str(tmp_path)) == "2 lines with TODO"
''')


def write_plugin(name: str, directory: Path) -> tuple[Path, Path]:
    """(the tool's file, its test). Raises ToolError for an unusable name and for files there."""
    if not NAME.fullmatch(name) or not name.isidentifier() or keyword.iskeyword(name):
        raise ToolError(f"{name!r} is no name for a tool; use small letters, digits and _")
    if name.startswith(NO_PLUGINS) or name.endswith("_test"):
        raise ToolError(f"a file {name}.py would be taken for a test; choose another name")
    file, test = directory / f"{name}.py", directory / f"test_{name}.py"
    for path in (file, test):
        if os.path.lexists(path):
            raise ToolError(f"{path} is there already; remove it or choose another name")
    words = {"name": name, "file": file.name, "test": test.name}
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, text in ((file, TOOL), (test, TEST)):
            with path.open("x", encoding="utf-8") as new:  # x: still not there
                new.write(text.substitute(words))
    except OSError as error:
        raise ToolError(f"cannot write in {directory}: {error.strerror or error}") from error
    return file, test
