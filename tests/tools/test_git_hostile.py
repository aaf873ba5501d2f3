"""A hostile repository runs nothing: every way its own configuration names a program is laid out.

Each trap leaves a flag when it is sprung. `test_the_traps_are_real` springs them with plain git.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HOOKS = (
    *("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "post-checkout"),
    *("post-index-change", "reference-transaction", "post-rewrite", "pre-auto-gc", "pre-push"),
    *("fsmonitor-watchman", "post-merge", "sendemail-validate"),
)
CALLS: tuple[dict[str, object], ...] = (
    {"action": "status"},
    {"action": "diff"},
    {"action": "diff", "revision": "HEAD~1"},
    {"action": "log"},
    {"action": "show"},
    {"action": "show", "revision": "HEAD~1"},
    {"action": "show", "path": "a.txt"},
    {"action": "blame", "path": "a.txt"},
    {"action": "add", "path": "."},
    {"action": "diff", "staged": True},
    {"action": "restore", "path": "a.txt", "staged": True},
    {"action": "commit", "message": "one", "path": "a.txt"},
    {"action": "branch"},
    {"action": "branch", "branch": "topic"},
    {"action": "switch", "branch": "topic"},
    {"action": "switch", "branch": "newer", "revision": "HEAD~1"},
    {"action": "stash", "message": "later"},
    {"action": "stash", "revision": "stash@{0}"},
    {"action": "stash", "max_count": 3},
    {"action": "restore", "path": "a.txt"},
    {"action": "restore", "path": "a.txt", "revision": "HEAD~1"},
    {"action": "worktree", "path": "wt", "branch": "wt"},
    {"action": "worktree"},
)


@pytest.fixture
def flags(tmp_path: Path) -> Path:
    flags = tmp_path / "flags"
    flags.mkdir()
    return flags


def programs(root: Path, trap: Callable[[str], str]) -> dict[str, str]:
    """Every setting that names a program, or makes git use one."""
    return {
        "core.fsmonitor": trap("fsmonitor"),
        "core.pager": trap("pager"),
        "pager.status": trap("pager-status"),
        "core.editor": trap("editor"),
        "sequence.editor": trap("sequence-editor"),
        "core.sshCommand": trap("ssh"),
        "core.askPass": trap("askpass"),
        "core.gitProxy": trap("proxy"),
        "core.alternateRefsCommand": trap("alternate-refs"),
        "credential.helper": trap("credential"),
        "diff.external": trap("diff-external"),
        "diff.evil.command": trap("diff-command"),
        "diff.evil.textconv": trap("textconv"),
        "filter.evil.clean": trap("clean"),
        "filter.evil.smudge": trap("smudge"),
        "filter.long.process": trap("process"),
        "filter.long.required": "true",
        "merge.evil.driver": trap("merge-driver"),
        "interactive.diffFilter": trap("diff-filter"),
        "commit.gpgSign": "true",
        "log.showSignature": "true",
        "format.pretty": "%G? %h",
        "gpg.program": trap("gpg"),
        "gpg.ssh.defaultKeyCommand": trap("ssh-key"),
        "alias.status": f"!{trap('alias')}",
        "extensions.partialClone": "origin",
        "remote.origin.url": "ssh://evil.example/x",
        "remote.origin.promisor": "true",
        "submodule.inner.update": f"!{trap('submodule')}",
        "trailer.sign.command": trap("trailer"),
        "trailer.sign.ifmissing": "add",
        "core.attributesFile": str(root / "evil-attributes"),
        "include.path": str(root / "evil-config"),
    }


@pytest.fixture
def hostile(git_root: Path, flags: Path, plain_git: Callable[..., str]) -> Path:
    """`git_root` with every trap set, and a changed file so that git has something to look at."""
    (git_root / "a.txt").write_text("one\ntwo\nthree\n")
    (git_root / "plain.rst").write_text("plain\n")
    plain_git(git_root, "add", ".")
    plain_git(git_root, "commit", "--quiet", "--message=second")

    def trap(name: str) -> str:
        script = git_root / ".git" / f"trap-{name}"
        script.write_text(f"#!/bin/sh\ntouch {flags}/{name}\ncat\n")
        script.chmod(0o755)
        return str(script)

    for hook in HOOKS:
        link = git_root / ".git/hooks" / hook
        link.unlink(missing_ok=True)
        link.symlink_to(trap(hook))
    (git_root / "inner").mkdir()
    plain_git(git_root / "inner", "init", "--quiet")
    plain_git(git_root / "inner", "commit", "--quiet", "--allow-empty", "--message=x")
    plain_git(git_root / "inner", "config", "core.fsmonitor", trap("inner-fsmonitor"))
    settings = programs(git_root, trap)
    (git_root / "evil-config").write_text(f'[filter "included"]\n\tclean = {trap("included")}\n')
    (git_root / "evil-attributes").write_text("*.md filter=included\n")
    (git_root / ".gitattributes").write_text(
        "*.txt filter=evil diff=evil merge=evil\n*.bin filter=long\n"
    )
    for name, value in settings.items():
        plain_git(git_root, "config", name, value)
    for name in ("a.txt", "new.txt", "b.bin", "c.md", "plain.rst"):
        (git_root / name).write_text("changed\n")
    for flag in flags.iterdir():
        flag.unlink()
    return git_root


def test_the_traps_are_real(hostile: Path, flags: Path) -> None:
    for arguments in (
        "status",
        "diff",
        "add c.md",
        "add .",
        "commit -m x",
        "log -p",
        "switch -c y",
    ):
        subprocess.run(["git", *arguments.split()], cwd=hostile, capture_output=True)
    sprung = {flag.name for flag in flags.iterdir()}
    expected = {"fsmonitor", "post-index-change", "diff-external", "textconv", "clean", "included"}
    assert expected <= sprung
    assert {"reference-transaction", "gpg", "process", "inner-fsmonitor"} & sprung


def test_no_action_runs_anything(call, hostile: Path, flags: Path) -> None:
    answers = {}
    for arguments in CALLS:
        answers[str(arguments)] = call("git", **arguments)
        assert [flag.name for flag in flags.iterdir()] == [], arguments
    failed = {name: answer.content for name, answer in answers.items() if answer.is_error}
    assert failed == {}


def test_a_partial_clone_fetches_nothing(call, hostile: Path, flags: Path, plain_git) -> None:
    blob = plain_git(hostile, "rev-parse", "HEAD:a.txt").strip()
    (hostile / ".git/objects" / blob[:2] / blob[2:]).unlink()
    assert call("git", action="show", path="a.txt").is_error
    call("git", action="diff")
    assert list(flags.iterdir()) == []


def test_variables_of_the_environment_run_nothing(call, hostile, flags, monkeypatch) -> None:
    trap = str(hostile / ".git/trap-pager")
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_EDITOR", "GIT_SSH_COMMAND", "GIT_ASKPASS"):
        monkeypatch.setenv(name, trap)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", trap)
    for action in ("status", "diff", "log", "show"):
        assert not call("git", action=action).is_error
    assert list(flags.iterdir()) == []


def test_a_filter_of_the_users_own_works(call, git_root: Path, home: Path, plain_git) -> None:
    """As Git LFS is set up; a repository that redefines it does not get its way."""
    with (home / ".gitconfig").open("a") as file:
        file.write('[filter "mine"]\n\tclean = sed s/secret/public/\n')
    (git_root / ".gitattributes").write_text("*.txt filter=mine\n")
    (git_root / "b.txt").write_text("secret\n")
    assert call("git", action="add", path="b.txt").content == "Added 1 file"
    assert plain_git(git_root, "show", ":b.txt") == "public\n"
    plain_git(git_root, "config", "filter.mine.clean", f"touch {git_root}/FLAG; cat")
    (git_root / "c.txt").write_text("secret\n")
    assert call("git", action="add", path="c.txt").content == "Added 1 file"
    assert not (git_root / "FLAG").exists()
    assert plain_git(git_root, "show", ":c.txt") == "public\n"


def test_a_work_tree_elsewhere_is_refused(call, git_root: Path, tmp_path: Path, plain_git) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a.txt").write_text("precious\n")
    plain_git(git_root, "config", "core.worktree", str(victim))
    for arguments in ({"action": "restore", "path": "a.txt"}, {"action": "status"}):
        assert "work tree is set to another directory" in call("git", **arguments).content
    assert (victim / "a.txt").read_text() == "precious\n"


def test_a_bare_repository_in_the_tree_is_not_used(call, root: Path, plain_git, flags) -> None:
    plain_git(root, "init", "--quiet", "--bare", "evil")
    plain_git(root / "evil", "config", "core.fsmonitor", f"touch {flags}/x")
    assert call("git", action="status").content == "Error: no git repository here"


def test_a_program_whose_name_holds_an_equals_sign(call, git_root: Path, flags: Path) -> None:
    with (git_root / ".git/config").open("a") as file:
        file.write(f'[filter "a=b"]\n\tclean = touch {flags}/x\n')
    (git_root / ".gitattributes").write_text("*.txt filter=a=b\n")
    (git_root / "a.txt").write_text("changed\n")
    result = call("git", action="diff")
    assert list(flags.iterdir()) == []
    assert result.is_error


def test_nothing_is_left_of_the_agents_secrets(call, git_root: Path, monkeypatch) -> None:
    """What git runs for the user gets a small environment, not the agent's."""
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    Path(os.environ["HOME"], ".gitconfig").write_text(
        f'[filter "mine"]\n\tclean = env > {git_root.parent}/environment; cat\n'
    )
    (git_root / ".gitattributes").write_text("*.txt filter=mine\n")
    (git_root / "b.txt").write_text("x\n")
    call("git", action="add", path="b.txt")
    assert "hunter2" not in (git_root.parent / "environment").read_text()
