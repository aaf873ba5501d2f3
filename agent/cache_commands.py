"""`ds4-agent cache list|stats|verify|prune|clear`: the states of prompts that are kept on disk.

In: their arguments. Out: lines on stdout, or JSON with `--json`; the exit code. They load no model
and may be used beside a running agent; what it uses stays.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.cli import Parser, add_common, options_from
from ds4_agent.agent.display import visible
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.places import find_places
from ds4_agent.agent.printing import print_json
from ds4_agent.agent.sizes import parse_size, shown_size

if TYPE_CHECKING:
    from ds4_agent.engine.kvstore.upkeep import Pruned

__all__ = ["run_cache"]

USAGE = """\
ds4-agent cache list|stats|verify [--json]
       ds4-agent cache prune [--budget SIZE] [--json]
       ds4-agent cache clear [--json]"""
DESCRIPTION = """\
What was computed of prompts is kept on disk. list: each place, last used first. stats: what there
is, in numbers. verify: read every file and set damaged ones aside (exit code 2 if there are any).
prune: delete what is of no use, then what was used longest ago, down to the budget. clear: delete
everything that no running agent uses."""


def run_cache(arguments: Sequence[str]) -> int:
    """Run `ds4-agent cache …`. Raises UsageError and StoreError."""
    actions: dict[str, Callable[[argparse.Namespace, Path], int]] = {
        "list": _list,
        "stats": _stats,
        "verify": _verify,
        "prune": _prune,
        "clear": _clear,
    }
    parser = Parser(
        prog="ds4-agent cache", usage=USAGE, description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("action", choices=list(actions), metavar="|".join(actions))
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--budget", metavar="SIZE", help="of prune: a size such as 10GB")
    add_common(parser)
    chosen = parser.parse_intermixed_args(arguments)
    if chosen.budget is not None and chosen.action != "prune":
        raise UsageError("--budget goes with prune")
    return actions[chosen.action](chosen, find_places(os.environ).kv)


def _budget(chosen: argparse.Namespace) -> int:
    """Of --budget, or config.toml's. Raises UsageError."""
    if chosen.budget is None:
        return options_from(chosen, is_headless=True).settings.cache_budget
    size = parse_size(chosen.budget)
    if size is None:
        raise UsageError(f"--budget must be a size such as 10GB, not {chosen.budget!r}")
    return size


def _list(chosen: argparse.Namespace, directory: Path) -> int:
    from ds4_agent.engine.kvstore.upkeep import places

    listed = places(directory)
    if chosen.json:
        print_json(
            [
                {
                    "model": place.root,
                    "name": place.name,
                    "kind": place.kind,
                    "tokens": place.tokens,
                    "bytes": place.size,
                    "row_bytes": place.row_size,
                    "last_used": _when(place.used).isoformat(timespec="seconds"),
                    "complete": place.is_complete,
                }
                for place in listed
            ]
        )
        return 0
    for place in listed:
        size = shown_size(place.size + place.row_size)
        used = f"{_when(place.used):%Y-%m-%d %H:%M}"
        note = "" if place.is_complete else "  incomplete: it will be computed again"
        print(
            f"{used}  {place.kind:<9} {place.tokens:>9,} tokens  {size:>9}  "
            f"{visible(place.root)}{note}"
        )
    return 0


def _stats(chosen: argparse.Namespace, directory: Path) -> int:
    from ds4_agent.engine.kvstore.upkeep import facts

    found = facts(directory)
    if chosen.json:
        print_json(
            {
                "directory": os.fspath(directory),
                "bytes": found.size,
                "places": dict(found.places),
                "rows": found.rows,
                "row_bytes": found.row_size,
                "unneeded_rows": found.unneeded_rows,
                "temporary_files": found.temporary_files,
                "bad_files": found.bad_files,
                "damaged": found.damaged,
                "models": found.roots,
                "disk_free": found.disk_free,
            }
        )
        return 0
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.places.items())
    unneeded = f", {found.unneeded_rows:,} needed by no place" if found.unneeded_rows else ""
    kept = f", {found.bad_files:,} kept in bad/" if found.bad_files else ""
    lines = {
        "directory": os.fspath(directory),
        "size": f"{shown_size(found.size)} ({shown_size(found.disk_free)} free on the disk)",
        "places": f"{sum(found.places.values()):,}{f' ({kinds})' if kinds else ''}",
        "rows": f"{found.rows:,} files, {shown_size(found.row_size)}{unneeded}",
        "models": f"{found.roots:,}",
        "temporary": f"{found.temporary_files:,} files",
        "damaged": f"{found.damaged:,} files so far{kept}",
    }
    for name, text in lines.items():
        print(f"{name:<10} {visible(text)}")
    return 0


def _verify(chosen: argparse.Namespace, directory: Path) -> int:
    """Exit code 2 when files were damaged."""
    from ds4_agent.engine.kvstore.upkeep import verify

    found = verify(directory)
    if chosen.json:
        damaged = [{"file": file, "reason": reason} for file, reason in found.damaged]
        print_json(
            {
                "files": found.files,
                "bytes": found.size,
                "damaged": damaged,
                "incomplete": list(found.incomplete),
            }
        )
    else:
        for file, reason in found.damaged:
            print(visible(f"{file}: {reason}; moved to bad/"))
        for file in found.incomplete:
            print(visible(f"{file}: rows are missing; it will be computed again"))
        print(f"{found.files:,} files are sound ({shown_size(found.size)})")
    return 2 if found.damaged else 0


def _prune(chosen: argparse.Namespace, directory: Path) -> int:
    from ds4_agent.engine.kvstore.upkeep import prune

    return _print_pruned(chosen, prune(directory, _budget(chosen)))


def _clear(chosen: argparse.Namespace, directory: Path) -> int:
    from ds4_agent.engine.kvstore.upkeep import clear

    return _print_pruned(chosen, clear(directory))


def _print_pruned(chosen: argparse.Namespace, pruned: Pruned) -> int:
    if chosen.json:
        print_json(
            {
                "deleted": {"files": pruned.files, "bytes": pruned.size},
                "left": {"files": pruned.files_left, "bytes": pruned.size_left},
            }
        )
        return 0
    print(
        f"deleted {pruned.files:,} files ({shown_size(pruned.size)}); "
        f"{pruned.files_left:,} are left ({shown_size(pruned.size_left)})"
    )
    return 0


def _when(seconds: float) -> datetime:
    """A time of the file system, which may be any number."""
    try:
        return datetime.fromtimestamp(seconds).astimezone()
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0).astimezone()
