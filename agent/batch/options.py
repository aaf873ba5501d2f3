"""The command line of `ds4-agent batch`.

In: arguments. Out: a checked namespace, and the `Task` it asks for. Raises UsageError.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.agent.batch.items import Source
from ds4_agent.agent.batch.ledger import Saved
from ds4_agent.agent.batch.taken_up import is_batch_id, unfinished_batch
from ds4_agent.agent.batch.task import Task
from ds4_agent.agent.cli import Parser, add_common, add_model_options, existing_directory
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.places import find_places
from ds4_agent.agent.printing import check_writable

__all__ = ["Request", "read_request"]

MOST_JOBS = 64
DESCRIPTION = "The same prompt over many files. What all share is computed once."
EPILOG = """\
In PROMPT, --verify and --scope, {path} is the item's file and {item.x} a field of its line in
--items FILE; where PROMPT names no file, "in {path}" is added. In --verify they come quoted for the
shell. An item may change its own file, and those that --scope names; commands run only where an
--allowed-tools rule allows them, one at a time. While --verify or such a command runs, the item's
changes stand in its files, also with --dry-run and --patch, which take them out again.

After each command the directory (the whole repository that holds it) is compared with what it was:
changes of the item's files are the item's; anything else is put back, what stood there is kept in
`strays` beside the ledger, and the item fails. Do not work there meanwhile: your changes would be
taken for the command's. Not held to this: files that .gitignore names (but for .ds4), git's own
records (index, commits, branches; its hooks and settings are held), whatever lies outside of the
repository, processes that a command detaches where the system is not Linux, and --verify, which is
your own command. A command that is killed together with the batch leaves what it wrote; --resume
names it. What git does not ignore is copied once before the first command.

exit codes: 0 every item is done, 1 usage, 2 model, disk or engine, 5 some items failed, 130 SIGINT,
143 SIGTERM. A batch that was stopped or killed goes on with `ds4-agent batch --resume`.
"""


@dataclass(frozen=True)
class Request:
    """What is asked for. `saved`: the batch that goes on; `arguments`: those of its beginning."""

    chosen: argparse.Namespace
    task: Task
    source: Source
    arguments: tuple[str, ...]
    saved: Saved | None = None
    patch: Path | None = None


def read_request(arguments: Sequence[str]) -> Request:
    """Parse and check. `--resume` alone takes everything else from the batch's own beginning."""
    parser = _parser()
    chosen = _parsed(parser, arguments)
    if chosen.takes_up is None:
        return _request(chosen, tuple(arguments), None, Path.cwd())
    own = [word for word in arguments if not _is_resume(word, chosen.takes_up)]
    folder = find_places(os.environ).data / "batches"
    directory = existing_directory(chosen.cd or Path())
    prompt = _prompt(chosen) if chosen.prompt is not None else None
    saved = unfinished_batch(folder, chosen.takes_up, directory, prompt)
    if prompt is not None:
        return _request(chosen, tuple(own), saved, Path.cwd())
    if chosen.globs or chosen.items or chosen.from_git:
        raise UsageError("--resume knows the items; leave them out, or repeat the whole command")
    again = _parsed(parser, [*saved.header["arguments"], *own])
    again.prompt, again.cd = saved.header["prompt"], Path(saved.header["directory"])
    existing_directory(again.cd)
    return _request(again, tuple(saved.header["arguments"]), saved, Path(saved.header["cwd"]))


def _is_resume(word: str, value: str) -> bool:
    return word == "--resume" or word.startswith("--resume=") or bool(value and word == value)


def _parsed(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    chosen = parser.parse_intermixed_args(arguments)
    if chosen.takes_up and not is_batch_id(chosen.takes_up):  # it swallowed a pattern
        chosen.globs = [chosen.takes_up, *chosen.globs]
        chosen.takes_up = ""
    return chosen


def _prompt(chosen: argparse.Namespace) -> str:
    text: str = chosen.prompt
    if text == "-":
        text = sys.stdin.read() if sys.stdin is not None else ""
    if not text.strip():
        raise UsageError("there is no prompt; give one with -p PROMPT")
    return text.strip("\n")


def _request(
    chosen: argparse.Namespace, arguments: tuple[str, ...], saved: Saved | None, cwd: Path
) -> Request:
    if chosen.prompt is None:
        raise UsageError("there is no prompt; give one with -p PROMPT")
    patch = None if chosen.patch is None else Path(os.path.abspath(cwd / chosen.patch))
    applies = not chosen.dry_run and patch is None
    if chosen.commit and not applies:
        raise UsageError("--commit needs changed files; it does not go with --dry-run or --patch")
    for file in (patch, chosen.output):
        if file is not None:
            check_writable(file)
    for name, least in (("retries", 0), ("jobs", 1)):
        if getattr(chosen, name) < least:
            raise UsageError(f"--{name} must be at least {least}")
    if chosen.jobs > MOST_JOBS:
        raise UsageError(f"--jobs must be at most {MOST_JOBS}")
    if not chosen.verify_timeout > 0:
        raise UsageError("--verify-timeout must be above 0")
    task = Task(
        prompt=_prompt(chosen),
        scope=tuple(chosen.scope or ()),
        verify=(chosen.verify or "").strip(),
        verify_seconds=chosen.verify_timeout,
        retries=chosen.retries,
        commit=chosen.commit or "",
        applies=applies,
    )
    source = Source(tuple(chosen.globs), chosen.items, chosen.from_git)
    return Request(chosen, task, source, arguments, saved, patch)


def _parser() -> Parser:
    parser = Parser(
        prog="ds4-agent batch",
        usage="ds4-agent batch GLOB… -p PROMPT [options]\n       ds4-agent batch --resume [ID]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_items(parser)
    _add_work(parser)
    add_model_options(parser)
    _add_permissions(parser)
    _add_output(parser)
    add_common(parser)
    return parser


def _add_items(parser: Parser) -> None:
    add = parser.add_argument_group("items").add_argument
    add("globs", nargs="*", metavar="GLOB",
        help="files, e.g. 'src/**/*.py'; those that .gitignore names are left out")  # fmt: skip
    add("--items", type=Path, metavar="FILE", help='JSONL: an object an item, its file in "path"')
    add("--from-git", metavar="REV", help="files that differ from REV (and fit a GLOB, if given)")


def _add_work(parser: Parser) -> None:
    add = parser.add_argument_group("what is done").add_argument
    add("-p", "--prompt", metavar="PROMPT", help="what to do with each; - reads it from stdin")
    add("--scope", action="append", metavar="GLOB", help="files that items may change as well")
    add("--verify", metavar="CMD", help="a check of each item; where it fails, so does the item")
    add("--verify-timeout", type=float, default=300, metavar="S", help="of the check (default 300)")
    add("--retries", type=int, default=1, metavar="N",
        help="more tries, by forks that read what a failed check said (default 1)")  # fmt: skip
    add("--dry-run", action="store_true", help="print the changes as diffs and make none")
    add("--patch", type=Path, metavar="FILE", help="write the changes as one patch and make none")
    add("--commit", nargs="?", const="one", choices=("one", "each"),
        help="commit what changed: in one commit, or one an item")  # fmt: skip
    add("--jobs", type=int, default=1, metavar="N", help="items under way at a time (default 1)")
    add("--resume", dest="takes_up", nargs="?", const="", metavar="ID",
        help="go on with a batch that was stopped: the latest here, or ID")  # fmt: skip


def _add_permissions(parser: Parser) -> None:
    add = parser.add_argument_group("permissions").add_argument
    add("--permission-mode", choices=("accept-edits", "plan", "deny"),
        help="accept-edits (default in a git repository), plan reads, deny: by rules")  # fmt: skip
    add("--allowed-tools", "--allowedTools", action="append", metavar="RULES",
        help='commands an item may run, e.g. "bash(make test)"')  # fmt: skip
    add("--disallowed-tools", "--disallowedTools", action="append", metavar="RULES",
        help="refuse these, whatever else allows them")  # fmt: skip
    add("--trust", action="store_true",
        help="from now on load what this repository brings that can run (.ds4/tools)")  # fmt: skip


def _add_output(parser: Parser) -> None:
    add = parser.add_argument_group("output").add_argument
    add("--output-format", choices=("text", "json", "stream-json"), default="text")
    add("-o", dest="output", type=Path, metavar="FILE", help="write the table (json formats: the "
        "result object) to FILE as well")  # fmt: skip
    add("--no-cache", action="store_true", help="read and keep no states of the model on disk")
