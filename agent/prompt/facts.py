"""Facts about the repository that stand once, late, in the prompt's reminder slot.

In: the workspace root. Out: a frozen `Facts`, its values read from files only: nothing here
starts a process, follows a repository's configuration or runs anything of it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

READ_LIMIT = 64 * 1024  # bytes read of any one file: enough for every import and target line
FILE_LIMIT = 200  # test files looked at
PYTEST = "python3 -m pytest -q"
UNITTEST = "python3 -m unittest"


@dataclass(frozen=True)
class Facts:
    """What the model is told about where it works. `tests` is None when unknown."""

    tests: str | None = None
    directory: str = ""
    branch: str | None = None
    date: str = ""


def gather_facts(root: Path, *, today: date) -> Facts:
    """The facts of `root` on the day `today` (a parameter, so that a test is repeatable)."""
    return Facts(
        tests=test_command(root),
        directory=os.fspath(root),
        branch=git_branch(root),
        date=today.isoformat(),
    )


def test_command(root: Path) -> str | None:
    """The command that runs the tests of the repository at `root`, or None. First hit wins."""
    if any(_has_test_target(root / name) for name in ("GNUmakefile", "makefile", "Makefile")):
        return "make test"
    if _has_npm_test(root / "package.json"):
        return "npm test"
    if _is_file(root / "Cargo.toml"):
        return "cargo test"
    if _is_file(root / "go.mod"):
        return "go test ./..."
    return _python_test_command(root)


test_command.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it by name


def git_branch(root: Path) -> str | None:
    """The checked-out branch of the repository that holds `root`; None without one or detached."""
    for directory in (root, *root.parents):
        dot_git = directory / ".git"
        head = dot_git / "HEAD"
        if _is_file(dot_git):  # a linked worktree: `.git` is a file that names its directory
            pointer = _head(dot_git).strip()
            head = directory / pointer.removeprefix("gitdir:").strip() / "HEAD"
        text = _head(head).strip()
        if text:
            name = text.removeprefix("ref: refs/heads/")
            return name if name != text and "\n" not in name and len(name) <= 200 else None
    return None


def _has_test_target(makefile: Path) -> bool:
    for line in _head(makefile).splitlines():
        names, colon, rest = line.partition(":")
        if colon and not line[0].isspace() and not rest.startswith("=") and "test" in names.split():
            return True
    return False


def _has_npm_test(package: Path) -> bool:
    try:
        script = json.loads(_head(package))["scripts"]["test"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    # `npm init` writes a script that only says there is none.
    return isinstance(script, str) and bool(script.strip()) and "no test specified" not in script


def _python_test_command(root: Path) -> str | None:
    if _is_file(root / "pytest.ini") or "[tool.pytest" in _head(root / "pyproject.toml"):
        return PYTEST
    files = [path for path, _ in zip(_python_test_files(root), range(FILE_LIMIT), strict=False)]
    if not files:
        return PYTEST if _is_file(root / "pyproject.toml") else None
    texts = [_head(path) for path in files]
    if any(_needs_pytest(text) for text in texts):
        return PYTEST
    if not any("unittest" in line.split() for line in _import_lines(texts)):
        return PYTEST
    # unittest finds tests from the top only through packages; a plain folder has to be named.
    folders = {path.relative_to(root).parts[0] for path in files if path.parent != root}
    plain = [name for name in sorted(folders) if not _is_file(root / name / "__init__.py")]
    return f"{UNITTEST} discover -s {plain[0]}" if len(folders) == 1 and plain else UNITTEST


def _needs_pytest(text: str) -> bool:
    lines = text.splitlines()
    return any(line.startswith(("def test_", "async def test_")) for line in lines) or any(
        "pytest" in line.split() for line in _import_lines([text])
    )


def _import_lines(texts: list[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines():
            if line.lstrip().startswith(("import ", "from ")):
                yield line.replace(",", " ").replace(".", " ")


def _python_test_files(root: Path) -> Iterator[Path]:
    """Test modules in the root, then below `tests/` and `test/`, in a stable order."""
    yield from (path for path in _listing(root) if _is_test_module(path))
    for name in ("tests", "test"):
        for folder, folders, files in os.walk(root / name):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                if _is_test_module(path):
                    yield path


def _listing(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def _is_test_module(path: Path) -> bool:
    is_named = path.name.startswith("test_") or path.stem.endswith("_test")
    return path.suffix == ".py" and is_named and _is_file(path)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _head(path: Path) -> str:
    """The first READ_LIMIT bytes of a regular file as text; "" for anything else."""
    if not _is_file(path):  # a FIFO or a device named Makefile would hang or never end
        return ""
    try:
        with path.open("rb") as file:
            return file.read(READ_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
