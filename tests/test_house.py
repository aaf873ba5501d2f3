"""The house of the design, kept by a machine: who imports whom, what lives where, and how large."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "engine": set(),
    "tools": set(),
    "sessions": set(),
    "agent": {"engine", "tools", "sessions"},
    "tui": {"agent", "engine", "tools", "sessions"},
}
# Modules that only one place may import: process start, git, the model framework, the screen.
SOLE_USERS = {
    "subprocess": {"tools/process.py"},
    "git": {"tools/git.py"},
    "mlx": {"engine"},
    "textual": {"tui"},
    "prompt_toolkit": {"tui"},
    "torch": set(),
    "transformers": set(),
    # The network: one module, on request.
    "huggingface_hub": {"agent/hub.py"},
    "socket": set(),
    "http": set(),
    "urllib": set(),
    "requests": set(),
    "httpx": set(),
    "httpx2": set(),
    "aiohttp": set(),
    "ftplib": set(),
}
LONGEST_FILE = 500
LONGEST_FUNCTION = 60
# Functions over the limit, each with its reason.
LONG_FUNCTIONS: dict[str, str] = {}


def product_files() -> list[Path]:
    return sorted(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))


def all_python_files() -> list[Path]:
    rest = [p for d in ("training", "bench", "tests") for p in (ROOT / d).rglob("*.py")]
    return product_files() + sorted(p for p in rest if "runs" not in p.parts)


def imported_modules(path: Path) -> Iterator[tuple[str, bool]]:
    """Each module a file imports at run time, and whether at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    type_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in type_only:
            continue
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, top


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", product_files(), ids=relative)
def test_imports_point_down(path: Path) -> None:
    floor = relative(path).split("/")[0]
    for module, _ in imported_modules(path):
        parts = module.split(".")
        if parts[0] == "ds4_agent" and len(parts) > 1 and parts[1] in FLOORS:
            assert parts[1] == floor or parts[1] in FLOORS[floor], f"{relative(path)}: {module}"


@pytest.mark.parametrize("path", product_files(), ids=relative)
def test_one_place_each(path: Path) -> None:
    name = relative(path)
    for module, _ in imported_modules(path):
        allowed = SOLE_USERS.get(module.split(".")[0])
        if allowed is not None:
            assert any(name == place or name.startswith(place + "/") for place in allowed), (
                f"{name} imports {module}; only {sorted(allowed) or 'nobody'} may"
            )


@pytest.mark.parametrize("path", all_python_files(), ids=relative)
def test_files_have_one_subject(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_FILE, f"{relative(path)} has {len(lines)} lines"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            name = f"{relative(path)}:{node.name}"
            assert length <= LONGEST_FUNCTION or name in LONG_FUNCTIONS, f"{name}: {length} lines"


def test_python_help_loads_neither_model_nor_screen() -> None:
    probe = (
        "import sys\n"
        "from ds4_agent.agent.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'mlx', 'textual', 'prompt_toolkit', 'numpy', 'torch', 'git', 'huggingface_hub'}), "
        "file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_folders_are_what_is_installed() -> None:
    for floor in FLOORS:
        link = ROOT / "src" / "ds4_agent" / floor
        assert link.is_symlink(), f"{link} must be a relative link to {floor}/"
        assert link.resolve() == ROOT / floor
