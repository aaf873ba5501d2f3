"""The bundled model refactors real files in a batch; what all items share is computed once."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.engine.open import NANO

pytestmark = [
    pytest.mark.nano,
    pytest.mark.skipif(
        not (NANO / "model.safetensors").is_file(), reason="the nano weights are not trained yet"
    ),
]
OLD, NEW = "from __future__ import annotations", "from __future__ import generator_stop"
REPLACE = f'replace "{OLD}" with "{NEW}"'


@pytest.fixture
def package(tmp_path: Path, run_git: Callable[..., str]) -> Path:
    """The top modules of prompt_toolkit as a repository."""
    spec = importlib.util.find_spec("prompt_toolkit")
    assert spec is not None
    assert spec.origin is not None
    root = tmp_path / "clone"
    (root / "lib").mkdir(parents=True)
    for file in sorted(Path(spec.origin).parent.glob("*.py"))[:12]:
        shutil.copy(file, root / "lib")
    run_git(root, "init", "-q", "-b", "main")
    run_git(root, "add", ".")
    run_git(root, "commit", "-q", "-m", "as it was released")
    return root


@pytest.fixture
def ask(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., dict[str, Any]]:
    def run(root: Path, *arguments: str) -> dict[str, Any]:
        capfdbinary.readouterr()
        code = main(["batch", "-C", str(root), *arguments, "--output-format", "json"])
        out, err = capfdbinary.readouterr()
        assert code == 0, err.decode()
        result = json.loads(out)
        assert isinstance(result, dict)
        return result

    return run


def test_twelve_files(ask: Callable[..., dict[str, Any]], package: Path) -> None:
    before = {file: file.read_text() for file in package.glob("lib/*.py")}
    result = ask(package, "lib/*.py", "-p", REPLACE, "--verify", f"grep -q '{NEW}' {{path}}")
    assert result["batch"]["changed"] == 12
    for file, text in before.items():
        assert file.read_text() == text.replace(OLD, NEW)
    prefill = result["batch"]["prefill"]
    assert prefill["prefilled_tokens"] == prefill["expected_tokens"]
    assert prefill["separate_tokens"] > 3 * prefill["prefilled_tokens"]


def test_several_at_a_time_give_the_same(
    ask: Callable[..., dict[str, Any]], package: Path, run_git: Callable[..., str]
) -> None:
    def outcome(*arguments: str) -> list[tuple[Any, ...]]:
        result = ask(package, "lib/*.py", "-p", REPLACE, "--no-cache", *arguments)
        run_git(package, "checkout", "-q", ".")
        keys = ("path", "text", "diff_sha256", "turns")
        for item in result["items"]:  # what was guessed ahead is a matter of time
            del item["tokens"]["drafted_tokens"], item["tokens"]["accepted_tokens"]
        return [(*(item[key] for key in keys), item["tokens"]) for item in result["items"]]

    assert outcome("--jobs", "1") == outcome("--jobs", "4")


def test_only_files_with_the_name_are_changed(
    ask: Callable[..., dict[str, Any]], package: Path, run_git: Callable[..., str]
) -> None:
    with_it = [f for f in package.glob("lib/*.py") if "SimpleCache" in f.read_text()]
    result = ask(package, "lib/*.py", "-p", "rename the class SimpleCache to SmallCache in {path}")
    assert result["batch"]["changed"] == len(with_it)
    assert all("SimpleCache" not in file.read_text() for file in with_it)
    changed = run_git(package, "diff", "--name-only").split()
    assert sorted(changed) == sorted(f"lib/{file.name}" for file in with_it)
