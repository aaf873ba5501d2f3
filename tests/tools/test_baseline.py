"""What a command did to the files of a directory, told and taken back."""

import os
import stat
from pathlib import Path

import pytest

from ds4_agent.tools.baseline import Baseline


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / ".git/hooks").mkdir(parents=True)
    (root / ".git/config").write_text("[core]\n")
    (root / "src/deep").mkdir(parents=True)
    (root / "src/a.py").write_text("a = 1\n")
    (root / "src/deep/b.py").write_text("b = 1\n")
    (root / "run.sh").write_text("true\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("src/a.py")
    (root / ".gitignore").write_text("build/\n")
    (root / "build").mkdir()
    (root / "build/out").write_text("old\n")
    os.utime(root / "src/a.py", ns=(10**18, 10**18 + 7))
    return root


@pytest.fixture
def baseline(tree: Path, tmp_path: Path) -> Baseline:
    found = Baseline((tree,), tmp_path / "copies")
    found.take()
    return found


def picture(root: Path) -> dict[str, tuple[int, object]]:
    """Everything below `root`: mode, and content or target."""
    seen: dict[str, tuple[int, object]] = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        content = None if stat.S_ISDIR(mode) else path.read_bytes()
        held = os.readlink(path) if stat.S_ISLNK(mode) else content
        seen[path.relative_to(root).as_posix()] = (mode, held)
    return seen


def put_back_all(baseline: Baseline) -> list[str]:
    root, found = baseline.tops[0], []
    while changed := baseline.changed():
        for path in changed:
            baseline.put_back(path, None)
        baseline.remove_new_directories()
        found += [path.relative_to(root).as_posix() for path in changed]
    baseline.remove_new_directories()
    return found


def test_nothing_changed(baseline: Baseline, tree: Path) -> None:
    (tree / "src/a.py").read_text()
    os.utime(tree / "src/deep/b.py")
    assert baseline.changed() == []


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("echo 'a = 2' > src/a.py", ["src/a.py"]),
        ("rm src/a.py", ["src/a.py"]),
        ("rm -r src", ["src", "src/a.py", "src/deep", "src/deep/b.py"]),
        ("chmod 600 run.sh", ["run.sh"]),
        ("mkdir -p n/m; touch n/m/x", ["n/m/x"]),
        ("ln -sfn run.sh link", ["link"]),
        ("rm src/a.py; mkdir src/a.py; touch src/a.py/x", ["src/a.py", "src/a.py/x"]),
        ("mv src old; ln -s /tmp src", ["old/a.py", "old/deep/b.py", "src"]),
        ("mkfifo pipe", ["pipe"]),
        ("echo x > .git/hooks/pre-commit", [".git/hooks/pre-commit"]),
        ("echo x >> .git/config", [".git/config"]),
        ("mkdir .ds4; echo .ds4 >> .gitignore; echo x > .ds4/config.toml", [".ds4/config.toml"]),
        ("echo '*' > .gitignore; echo x > src/new.py", [".gitignore", "src/new.py"]),
        ("chmod 0 src/deep; chmod 700 src", ["src", "src/deep"]),
        ("printf 'b = 2\\n' > src/deep/b.py; touch -r run.sh src/deep/b.py", ["src/deep/b.py"]),
        ("touch 'a\nb'", ["a\nb"]),
    ],
)
def test_whatever_a_command_does_is_told_and_taken_back(
    baseline: Baseline, tree: Path, command: str, told: list[str]
) -> None:
    before = picture(tree)
    assert os.system(f"cd {tree} && {command}") == 0
    found = put_back_all(baseline)
    assert set(told) <= set(found)
    assert picture(tree) == before


def test_what_is_ignored_is_left_alone(baseline: Baseline, tree: Path) -> None:
    (tree / "build/out").write_text("new\n")
    (tree / "build/more").write_text("new\n")
    assert baseline.changed() == []


def test_a_file_gets_its_time_back(baseline: Baseline, tree: Path) -> None:
    (tree / "src/a.py").write_text("a = 2\n")
    put_back_all(baseline)
    assert (tree / "src/a.py").stat().st_mtime_ns == 10**18 + 7


def test_a_change_that_leaves_no_other_time_is_found(baseline: Baseline, tree: Path) -> None:
    """Within one tick of the clock: the same size, the same times."""
    held = baseline.held[tree / "src/a.py"]
    (tree / "src/a.py").write_text("a = 2\n")
    times = (tree / "src/a.py").lstat()
    baseline.held[tree / "src/a.py"] = type(held)(times, "", held.copy, is_fresh=True)
    assert baseline.changed() == [tree / "src/a.py"]


def test_what_was_there_can_be_kept(baseline: Baseline, tree: Path, tmp_path: Path) -> None:
    (tree / "src/a.py").write_text("somebody's\n")
    baseline.put_back(tree / "src/a.py", tmp_path / "kept/src/a.py")
    assert (tmp_path / "kept/src/a.py").read_text() == "somebody's\n"
    assert (tree / "src/a.py").read_text() == "a = 1\n"


def test_a_second_look_copies_only_what_changed(baseline: Baseline, tree: Path) -> None:
    for path in (tree / "src/a.py", tree / "run.sh"):
        baseline.held[path] = type(baseline.held[path])(path.lstat(), "", baseline.held[path].copy)
    before = dict(baseline.held)
    (tree / "run.sh").write_text("false\n")
    baseline.take()
    assert baseline.held[tree / "src/a.py"] is before[tree / "src/a.py"]
    assert baseline.held[tree / "run.sh"].content() == b"false\n"
    copies = {held.copy for held in baseline.held.values() if held.copy}
    assert set(baseline.folder.iterdir()) == copies


def test_what_is_the_programs_own_does_not_count(tree: Path, tmp_path: Path) -> None:
    (tree / "home").mkdir()
    baseline = Baseline((tree,), tmp_path / "copies", (tree / "home",))
    baseline.take()
    (tree / "home/ledger").write_text("x")
    assert baseline.changed() == []
