"""The only place that calls git, through GitPython's command object, in one hardened environment.

In: arguments of git and the workspace's directory. Out: exit status and bounded output. Nothing
that a repository brings along is run: no hook, fsmonitor, pager, editor, external diff, textconv,
filter, merge driver, signing program or transport. What the user's own configuration names as a
filter (Git LFS) still works.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds4_agent.tools.output import HeadTail
from ds4_agent.tools.process import find_program
from ds4_agent.tools.types import ToolError

TIMEOUT_S = 60.0
POLL_S = 0.05
POLITE_S = 1.0  # git removes its lock files on TERM
OUTPUT_HEAD, OUTPUT_TAIL = 64 * 1024, 16 * 1024
ERROR_LIMIT = 4 * 1024
LISTING = 256 * 1024 * 1024  # bytes of a list of names, which is of no use with a part left out
# Everything else of the agent's environment stays outside, the GIT_* variables above all.
PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME", "EMAIL"),
    *("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
)
ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "false",
    "GIT_SEQUENCE_EDITOR": "false",
    "GIT_ASKPASS": "false",
    "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch, by ssh, what a diff needs
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",  # a path is a path, never `:(top)` or a pattern
    "LC_ALL": "C.UTF-8",
    "LANGUAGE": "C",
}
SETTINGS = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.pager": "cat",
    "core.editor": "false",
    "core.sshCommand": "false",
    "core.gitProxy": "none",
    "core.alternateRefsCommand": "false",
    "core.quotePath": "false",
    "core.abbrev": "7",
    "credential.helper": "",
    "safe.bareRepository": "explicit",
    "protocol.allow": "never",
    "protocol.ext.allow": "never",
    "submodule.recurse": "false",
    "diff.external": "",
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
    "status.showUntrackedFiles": "normal",
    "status.relativePaths": "true",
    "status.submoduleSummary": "false",
    "log.showSignature": "false",
    "format.pretty": "medium",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gpg.program": "false",
    "gpg.ssh.program": "false",
    "gpg.x509.program": "false",
    "gpg.ssh.defaultKeyCommand": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "color.ui": "false",
    "column.ui": "never",
    "user.useConfigOnly": "true",  # never a name made up from the machine's
}
# Programs that a repository names under a name of its own choice, and what disarms each.
NAMED = r"^(filter|merge|diff)\..*\.(clean|smudge|process|required|driver|command|textconv)$"
DISARMED = {"required": "false", "driver": "false"}
IDENTITY_SIGNS = ("tell me who you are", "identity unknown", "empty ident", "auto-detection is")


@dataclass(frozen=True)
class GitOutput:
    """What one call of git gave; `out` says where it was cut."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """git's error as one sentence, without its hints."""
        if any(sign in self.err for sign in IDENTITY_SIGNS):
            return "git does not know who you are; set user.name and user.email with git config"
        lines = [line.strip() for line in (self.err or self.out).splitlines()]
        said = [re.sub(r"^(fatal|error|warning): ", "", line) for line in lines if line]
        kept = [line for line in said if not line.startswith("hint:")]
        return "; ".join(kept[:4]) or f"git failed with exit code {self.status}"


@dataclass(frozen=True)
class Repository:
    """A repository that may be used: `top` is the work tree, `overrides` disarm its programs."""

    directory: Path
    top: Path
    overrides: Mapping[str, str]
    cancel: threading.Event

    def call(self, *arguments: str, locks: bool = False) -> GitOutput:
        """Run git and take what comes. Raises ToolError when it cannot run, or is cancelled."""
        return _execute(self.directory, self.overrides, arguments, self.cancel, locks)

    def names(self, *arguments: str) -> list[str]:
        """The names that git lists when it ends each with NUL (`-z`), all of them. Raises
        ToolError with git's complaint."""
        done = _execute(self.directory, self.overrides, arguments, self.cancel, False, LISTING)
        if done.status != 0:
            raise ToolError(done.complaint)
        return [name for name in done.out.split("\0") if name]

    def checked(self, *arguments: str, locks: bool = False) -> str:
        """Run git and return what it printed. Raises ToolError with git's complaint."""
        done = self.call(*arguments, locks=locks)
        if done.status != 0:
            raise ToolError(done.complaint)
        return done.out


def open_repository(directory: Path, cancel: threading.Event) -> Repository:
    """The repository that holds `directory`. Raises ToolError where there is none to be used."""
    marked = next((d for d in (directory, *directory.parents) if (d / ".git").exists()), None)
    if marked is None:
        raise ToolError("no git repository here")
    found = _execute(directory, {}, ("rev-parse", "--show-toplevel"), cancel, False)
    if found.status != 0:
        if "not a git repository" in found.err:
            raise ToolError("no git repository here")
        raise ToolError(found.complaint)
    top = Path(found.out.removesuffix("\n"))
    if not top.samefile(marked):  # core.worktree of its configuration leads elsewhere
        raise ToolError(f"the repository's work tree is set to another directory, {top}; not used")
    return Repository(directory, top, _overrides(directory, cancel), cancel)


def _overrides(directory: Path, cancel: threading.Event) -> dict[str, str]:
    """Settings that put the user's own value, or nothing, in place of each named program."""
    query = ("config", "-z", "--show-scope", "--get-regexp", NAMED)
    listed = _execute(directory, {}, query, cancel, False)
    if listed.status not in (0, 1) or "bytes left out" in listed.out:
        raise ToolError(f"cannot read the repository's git configuration: {listed.complaint}")
    fields = listed.out.split("\0")
    users: dict[str, str] = {}
    foreign: set[str] = set()
    for scope, entry in zip(fields[::2], fields[1::2], strict=False):
        name, _, value = entry.partition("\n")
        if scope == "global":
            users[name] = value
        else:
            foreign.add(name)
    if any("=" in name for name in foreign):  # `-c` could not name it
        raise ToolError("the repository's git configuration names a program with `=`; not used")
    return {name: users.get(name, DISARMED.get(name.rsplit(".", 1)[1], "")) for name in foreign}


def _execute(
    directory: Path,
    overrides: Mapping[str, str],
    arguments: tuple[str, ...],
    cancel: threading.Event,
    locks: bool,
    head: int = OUTPUT_HEAD,
) -> GitOutput:
    try:
        from git import Git
        from git.exc import GitCommandNotFound
    except ImportError as error:  # GitPython looks for git when it is imported
        raise ToolError("git is not installed") from error
    settings = (SETTINGS | dict(overrides)).items()
    # GitPython adds variables to the agent's environment but takes none away; `env -i` does.
    environment = [f"{name}={os.environ[name]}" for name in PASSED if name in os.environ]
    environment += [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    environment += [f"GIT_OPTIONAL_LOCKS={int(locks)}"]
    program = find_program("git", directory)
    if program is None:
        raise ToolError("git is not installed")
    command = ["/usr/bin/env", "-i", *environment, program]
    command += [word for name, value in settings for word in ("-c", f"{name}={value}")]
    command += ["--no-pager", *arguments]
    if any("\0" in word for word in command):
        raise ToolError("an argument holds a NUL character")
    try:
        process = Git(str(directory)).execute(command, as_process=True, start_new_session=True)
    except (GitCommandNotFound, OSError) as error:
        raise ToolError(f"cannot run git: {error}") from error
    return _collect(process, cancel, head)


def _collect(process: Any, cancel: threading.Event, head: int) -> GitOutput:
    out, err = HeadTail(head, OUTPUT_TAIL), HeadTail(ERROR_LIMIT, ERROR_LIMIT)
    deadline = time.monotonic() + TIMEOUT_S
    kept = {process.stdout: out, process.stderr: err}
    try:
        with selectors.DefaultSelector() as ready:
            for stream in kept:
                ready.register(stream, selectors.EVENT_READ)
            while ready.get_map():
                events = ready.select(POLL_S)
                for key, _ in events:
                    data = os.read(key.fd, 64 * 1024)
                    kept[key.fileobj].feed(data)
                    if not data:
                        ready.unregister(key.fileobj)
                if cancel.is_set():
                    raise ToolError("interrupted")
                if time.monotonic() > deadline:
                    raise ToolError(f"git did not end within {TIMEOUT_S:.0f} s and was stopped")
                if not events and process.proc.poll() is not None:
                    break  # something it left behind holds the pipe; nobody waits for that
        return GitOutput(process.proc.wait(), out.text(), err.text())
    finally:
        _end(process)


def _end(process: Any) -> None:
    """Whatever happened: the process is gone, reaped, and its pipes are closed."""
    running = process.proc
    for number, patience in ((signal.SIGTERM, POLITE_S), (signal.SIGKILL, POLITE_S)):
        if running.poll() is not None:
            break
        with suppress(ProcessLookupError):
            os.killpg(running.pid, number)
        until = time.monotonic() + patience
        while running.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
    running.stdout.close()
    running.stderr.close()
