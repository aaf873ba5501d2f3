"""`ds4-agent sessions list|show|search|export|fork|rename|rm`: the sessions there are.

In: their arguments. Out: lines on stdout (JSON with `--json`), the exit code. Loads no model. What
was said in a session reaches the terminal made visible; a session that cannot be read says why.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ds4_agent.agent.cli import Parser, add_common
from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.errors import OutputError, UsageError
from ds4_agent.agent.places import find_places
from ds4_agent.agent.printing import print_json, print_text, warn
from ds4_agent.agent.resume_time import resume_times
from ds4_agent.agent.session_choice import chosen_sessions, sessions_root, take, tell_others
from ds4_agent.agent.session_rows import HEAD, as_json, row
from ds4_agent.sessions.catalogue import find, fork, remove, rename
from ds4_agent.sessions.errors import SessionError, SessionFileError

__all__ = ["run_sessions"]

USAGE = """\
ds4-agent sessions list [--all] [--json]
       ds4-agent sessions show ID [--json]
       ds4-agent sessions search TEXT [--all] [--json]
       ds4-agent sessions export ID [--format md|json] [-o FILE]
       ds4-agent sessions fork ID
       ds4-agent sessions rename ID TITLE
       ds4-agent sessions rm ID …

An ID may be cut short where that leaves no doubt. Listed and searched are the sessions of this
directory (-C DIR: of that one); with --all those of every directory."""


def run_sessions(arguments: Sequence[str]) -> int:
    """Run `ds4-agent sessions …`. Raises UsageError and OutputError."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "list": _list,
        "show": _contents,
        "search": _contents,
        "export": _contents,
        "fork": _fork,
        "rename": _rename,
        "rm": _rm,
    }
    parser = Parser(prog="ds4-agent sessions", usage=USAGE, allow_abbrev=False)
    parser.add_argument("action", choices=list(actions), metavar="|".join(actions))
    parser.add_argument("words", nargs="*", metavar="ID|TEXT|TITLE")
    parser.add_argument("--all", action="store_true", help="of every directory (list, search)")
    parser.add_argument("--json", action="store_true", help="machine-readable (list, show, search)")
    parser.add_argument("--format", choices=("md", "json"), help="of an export (default: md)")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="export: into FILE")
    add_common(parser)
    chosen = parser.parse_intermixed_args(arguments)
    with _told():
        actions[chosen.action](chosen)
    return 0


def _contents(chosen: argparse.Namespace) -> None:
    """What is said in sessions; a list does without the code for it."""
    from ds4_agent.agent import session_contents

    work = {
        "show": session_contents.show,
        "search": session_contents.search,
        "export": session_contents.export,
    }
    work[chosen.action](chosen)


def _list(chosen: argparse.Namespace) -> None:
    take(chosen, 0, 0, "list")
    found, others = chosen_sessions(chosen)
    times = resume_times(found, find_places(os.environ).kv)
    if chosen.json:
        print_json([{**as_json(s), "resume_seconds": times[s.id]} for s in found])
    elif found:
        print_text("\n".join([HEAD, *(row(s, times[s.id], chosen.all) for s in found)]))
    tell_others(found, others, chosen)


def _fork(chosen: argparse.Namespace) -> None:
    (name,) = take(chosen, 1, 1, "fork ID")
    copy = fork(sessions_root() / find(sessions_root(), name).id, datetime.now().astimezone())
    print_text(visible(copy.name))
    warn(f"ds4-agent --resume {copy.name} goes on in it")


def _rename(chosen: argparse.Namespace) -> None:
    name, *title = take(chosen, 2, sys.maxsize, "rename ID TITLE")
    rename(sessions_root() / find(sessions_root(), name).id, " ".join(title))


def _rm(chosen: argparse.Namespace) -> None:
    names = take(chosen, 1, sys.maxsize, "rm ID …")
    for summary in dict.fromkeys(
        find(sessions_root(), name) for name in names
    ):  # all there, or none goes
        remove(sessions_root() / summary.id)
        print_text(f"removed {one_line(summary.id)}  {one_line(summary.title, 60)}".rstrip())


@contextmanager
def _told() -> Iterator[None]:
    """Errors as the kinds `cli` knows: the user's, and the disk's."""
    try:
        yield
    except SessionFileError as error:
        raise OutputError(str(error)) from error
    except SessionError as error:
        raise UsageError(str(error)) from error
