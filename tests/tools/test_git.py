"""git: each action on a real repository, with the texts the model is trained on."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from ds4_agent.tools import git as git_module
from ds4_agent.tools.registry import builtin_tools


def test_no_repository(call, root: Path) -> None:
    for action in ("status", "log", "commit"):
        result = call("git", action=action, message="x")
        assert result.is_error
        assert result.content == "Error: no git repository here"


def test_status_clean_changed_and_staged(call, git_root: Path, plain_git) -> None:
    assert call("git", action="status").content == "On branch main, nothing to commit"
    (git_root / "a.txt").write_text("changed\n")
    (git_root / "café.txt").write_text("new\n")
    (git_root / "b.txt").write_text("new\n")
    plain_git(git_root, "add", "b.txt")
    assert call("git", action="status").content == (
        "On branch main\n M a.txt\nA  b.txt\n?? café.txt"
    )
    assert call("git", action="status", path="a.txt").content == "On branch main\n M a.txt"


def test_status_before_the_first_commit_and_off_a_branch(call, root: Path, plain_git) -> None:
    plain_git(root, "init", "--quiet")
    assert (
        call("git", action="status").content == "On branch main, no commits yet, nothing to commit"
    )
    assert call("git", action="log").content == "No commits yet"
    assert call("git", action="branch").content == "No branches yet"
    (root / "a").touch()
    plain_git(root, "add", "a")
    plain_git(root, "commit", "--quiet", "--message=x")
    plain_git(root, "switch", "--quiet", "--detach")
    short = plain_git(root, "rev-parse", "--short=7", "HEAD").strip()
    assert call("git", action="status").content == f"Not on a branch, at {short}, nothing to commit"


def test_status_tells_the_distance_to_the_remote(
    call, git_root: Path, tmp_path: Path, plain_git
) -> None:
    plain_git(tmp_path, "clone", "--quiet", "--bare", str(git_root), "up.git")
    plain_git(git_root, "remote", "add", "origin", str(tmp_path / "up.git"))
    plain_git(git_root, "fetch", "--quiet")
    plain_git(git_root, "branch", "--quiet", "--set-upstream-to=origin/main")
    assert call("git", action="status").content == "On branch main, nothing to commit"
    for message in ("second", "third"):
        plain_git(git_root, "commit", "--quiet", "--allow-empty", f"--message={message}")
    assert call("git", action="status").content == (
        "On branch main, 2 commits ahead of origin/main, nothing to commit"
    )
    plain_git(git_root, "reset", "--quiet", "--hard", "HEAD~1")
    plain_git(git_root, "push", "--quiet")
    plain_git(git_root, "reset", "--quiet", "--hard", "HEAD~1")
    assert call("git", action="status").content == (
        "On branch main, 1 commit behind origin/main, nothing to commit"
    )


def test_diff(call, git_root: Path, plain_git) -> None:
    assert call("git", action="diff").content == "No changes"
    (git_root / "a.txt").write_text("one\n2\n")
    assert call("git", action="diff").content.endswith("@@ -1,2 +1,2 @@\n one\n-two\n+2")
    assert call("git", action="diff", path="a.txt").content.startswith("diff --git a/a.txt b/a.txt")
    assert call("git", action="diff", staged=True).content == "No staged changes"
    plain_git(git_root, "add", "a.txt")
    assert "+2" in call("git", action="diff", staged=True).content
    assert "+2" in call("git", action="diff", revision="HEAD").content


def test_add_and_commit(call, git_root: Path, plain_git) -> None:
    (git_root / "b.txt").write_text("b\n")
    (git_root / "c.txt").write_text("c\n")
    assert call("git", action="add", path=".").content == "Added 2 files"
    assert call("git", action="add", path="b.txt").content == "Nothing to add in b.txt"
    result = call("git", action="commit", message="Add b and c\n\nBecause.")
    short = plain_git(git_root, "rev-parse", "--short=7", "HEAD").strip()
    assert result.content == f"Committed {short}: Add b and c (2 files)"
    author = plain_git(git_root, "log", "-1", "--format=%an <%ae>|%B")
    assert author.strip() == "Ada <ada@example.org>|Add b and c\n\nBecause."


def test_commit_of_one_path_takes_nothing_else(call, git_root: Path, plain_git) -> None:
    (git_root / "a.txt").write_text("changed\n")
    (git_root / "b.txt").write_text("b\n")
    plain_git(git_root, "add", "b.txt")
    assert "(1 file)" in call("git", action="commit", message="x", path="a.txt").content
    assert call("git", action="status").content == "On branch main\nA  b.txt"


def test_commit_refusals(call, git_root: Path) -> None:
    assert call("git", action="commit", message="x").content == "Error: nothing to commit"
    (git_root / "a.txt").write_text("changed\n")
    assert call("git", action="commit", message="x").content == (
        "Error: nothing is staged to commit; use git add first, or give path"
    )
    assert call("git", action="commit").content == "Error: git commit needs message"
    assert call("git", action="add").content == "Error: git add needs path"


def test_commit_without_identity(call, git_root: Path, home: Path) -> None:
    (home / ".gitconfig").write_text("")
    (git_root / "a.txt").write_text("changed\n")
    result = call("git", action="commit", message="x", path="a.txt")
    assert result.content == (
        "Error: git does not know who you are; set user.name and user.email with git config"
    )


def test_add_of_an_ignored_or_missing_file(call, git_root: Path) -> None:
    (git_root / ".gitignore").write_text("*.log\n")
    (git_root / "x.log").touch()
    assert (
        "ignored by one of your .gitignore files" in call("git", action="add", path="x.log").content
    )
    assert call("git", action="add", path="nope").content == (
        "Error: pathspec 'nope' did not match any files"
    )


def test_paths_are_literal_and_inside(call, git_root: Path) -> None:
    (git_root / "sub").mkdir()
    (git_root / "sub/x.py").touch()
    for path in ("*.py", ":(top)", ":/"):
        assert call("git", action="add", path=path).is_error
    assert call("git", action="add", path="../x").content == "Error: ../x is outside the workspace"
    assert call("git", action="status").content == "On branch main\n?? sub/"


def test_log_and_show(call, git_root: Path, plain_git) -> None:
    for number in range(3):
        plain_git(git_root, "commit", "--quiet", "--allow-empty", f"--message=c{number}")
    lines = call("git", action="log").content.splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["c2", "c1", "c0", "first"]
    assert re.fullmatch(r"[0-9a-f]{7}", lines[0].partition(" ")[0])
    assert call("git", action="log", max_count=1).content.splitlines()[1:] == [
        "… there are more; set max_count"
    ]
    assert call("git", action="log", path="a.txt").content.endswith(" first")
    assert call("git", action="log", revision="HEAD~2..HEAD").content.count("\n") == 1
    assert "+two" in call("git", action="show", revision="HEAD~3").content
    (git_root / "a.txt").write_text("new\n")
    assert call("git", action="show", path="a.txt", revision="HEAD").content == "one\ntwo"
    assert call("git", action="show", revision="nope").is_error


def test_blame(call, git_root: Path) -> None:
    assert "(Ada " in call("git", action="blame", path="a.txt").content
    assert call("git", action="blame").content == "Error: git blame needs path"


def test_restore(call, git_root: Path, plain_git) -> None:
    (git_root / "a.txt").write_text("changed\n")
    plain_git(git_root, "add", "a.txt")
    assert call("git", action="restore", path="a.txt", staged=True).content == "Unstaged a.txt"
    assert call("git", action="status").content == "On branch main\n M a.txt"
    assert call("git", action="restore", path="a.txt").content == "Restored a.txt"
    assert (git_root / "a.txt").read_text() == "one\ntwo\n"
    assert call("git", action="restore").content == "Error: git restore needs path"


def test_branch_and_switch(call, git_root: Path) -> None:
    assert call("git", action="branch").content == "* main"
    assert call("git", action="branch", branch="topic").content == "Created branch topic"
    assert call("git", action="switch", branch="topic").content == "Switched to branch topic"
    assert call("git", action="branch").content == "  main\n* topic"
    assert call("git", action="switch", branch="nope").content == (
        "Error: there is no branch nope; create it with action branch"
    )
    assert call("git", action="switch", branch="new", revision="main").content == (
        "Switched to new branch new"
    )
    assert call("git", action="branch", branch="new").is_error
    assert call("git", action="switch").content == "Error: git switch needs branch"


def test_stash(call, git_root: Path) -> None:
    assert call("git", action="stash").content == "Nothing to stash"
    (git_root / "a.txt").write_text("changed\n")
    assert call("git", action="stash", message="later").content == "Stashed as stash@{0}"
    assert call("git", action="status").content == "On branch main, nothing to commit"
    assert call("git", action="stash", max_count=5).content == "stash@{0}: On main: later"
    assert call("git", action="stash", revision="main").is_error
    assert call("git", action="stash", revision="stash@{0}").content == "Brought back stash@{0}"
    assert (git_root / "a.txt").read_text() == "changed\n"


def test_worktree(call, git_root: Path, plain_git) -> None:
    added = call("git", action="worktree", path="wt", branch="topic")
    assert added.content == "Added worktree wt on new branch topic"
    assert (git_root / "wt/a.txt").exists()
    assert call("git", action="worktree").content.count("\n") == 1
    plain_git(git_root, "branch", "other")
    assert call("git", action="worktree", path="wt2", branch="other").content == (
        "Added worktree wt2 on branch other"
    )
    assert call("git", action="worktree", path="../out", branch="x").is_error


def test_a_linked_worktree_is_a_repository(call, git_root: Path, context, plain_git) -> None:
    plain_git(git_root, "worktree", "add", "--quiet", "wt", "-b", "topic")
    context.workspace.__init__(git_root / "wt")
    assert call("git", action="status").content == "On branch topic, nothing to commit"


def test_a_workspace_below_the_top(call, git_root: Path, context) -> None:
    (git_root / "sub").mkdir()
    (git_root / "sub/x.txt").write_text("x\n")
    context.workspace.__init__(git_root / "sub")
    assert call("git", action="add", path="x.txt").content == "Added 1 file"
    assert call("git", action="commit", message="sub").content.endswith(": sub (1 file)")
    assert call("git", action="show", path="x.txt").content == "x"
    assert call("git", action="add", path="../a.txt").is_error


def test_a_link_is_gits_to_track_not_its_target(call, git_root: Path, plain_git) -> None:
    (git_root / "link").symlink_to("/etc/passwd")
    assert call("git", action="add", path="link").content == "Added 1 file"
    call("git", action="commit", message="link")
    assert plain_git(git_root, "ls-tree", "HEAD", "link").startswith("120000 ")


@pytest.mark.parametrize("parameter", ["revision", "branch"])
@pytest.mark.parametrize("value", ["--output=x", "-c", "a\nb", "", " ", "a\0b"])
def test_nothing_is_taken_for_an_option(call, git_root: Path, parameter: str, value: str) -> None:
    for action in ("diff", "log", "show", "branch", "switch", "stash", "worktree", "restore"):
        result = call("git", action=action, **{parameter: value})
        assert result.content == f"Error: {value!r} is no {parameter}"
    assert sorted(os.listdir(git_root)) == [".git", "a.txt"]


def test_inherited_variables_do_not_lead_elsewhere(call, git_root, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert call("git", action="status").content == "On branch main, nothing to commit"


def test_reading_takes_no_lock(call, git_root: Path) -> None:
    (git_root / ".git/index.lock").touch()
    (git_root / "a.txt").write_text("changed\n")
    assert call("git", action="status").content == "On branch main\n M a.txt"
    assert "index.lock" in call("git", action="add", path="a.txt").content


def test_long_output_is_bounded_and_says_so(call, git_root: Path) -> None:
    (git_root / "a.txt").write_text("".join(f"line {n}\n" for n in range(50_000)))
    text = call("git", action="diff").content
    assert len(text) < 100_000
    assert " bytes left out …]\n" in text


def test_cancel_stops_git(call, context, git_root: Path, monkeypatch) -> None:
    slow = git_root.parent / "bin"
    slow.mkdir()
    (slow / "git").write_text("#!/bin/sh\nexec sleep 30\n")
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    threading.Timer(0.3, context.cancel.set).start()
    assert call("git", action="status").content == "Error: interrupted"


def test_git_that_is_not_installed(call, git_root: Path, monkeypatch) -> None:
    monkeypatch.setattr(git_module, "find_program", lambda *_: None)
    assert call("git", action="status").content == "Error: git is not installed"


def test_a_git_of_the_workspace_is_not_run(call, git_root: Path, monkeypatch) -> None:
    (git_root / "git").write_text("#!/bin/sh\necho EVIL\n")
    (git_root / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{git_root}:.:{os.environ['PATH']}")
    assert "EVIL" not in call("git", action="status").content


@pytest.mark.parametrize(
    ("arguments", "effect"),
    [
        ({"action": "status"}, "read"),
        ({"action": "show"}, "read"),
        ({"action": "branch"}, "read"),
        ({"action": "branch", "branch": "x"}, "execute"),
        ({"action": "stash", "max_count": 3}, "read"),
        ({"action": "stash"}, "execute"),
        ({"action": "worktree"}, "read"),
        ({"action": "add", "path": "."}, "edit"),
        ({"action": "commit"}, "execute"),
        ({"action": "restore", "path": "."}, "execute"),
    ],
)
def test_effects(arguments: dict, effect: str) -> None:
    tool = next(tool for tool in builtin_tools() if tool.name == "git")
    assert tool.effect_of(arguments) == effect


def test_a_foreign_owner_is_one_line(call, git_root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    for path in (git_root, git_root / ".git"):
        os.chown(path, 12345, 12345)
    result = call("git", action="status")
    assert result.content.startswith("Error: detected dubious ownership")
    assert "\n" not in result.content


def test_the_processes_are_gone(call, git_root: Path) -> None:
    for _ in range(5):
        call("git", action="log")
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "comm="], capture_output=True, text=True
    ).stdout.split()
    assert "git" not in children
    assert "env" not in children
