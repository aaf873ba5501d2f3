"""`python -m ds4_agent.agent.prompt.worked [--check] [NAME …]`: write or check the worked sessions.

In: names of sessions (all without any). Out: Markdown files in `handbook/`, or with `--check` the
names of those that running gives otherwise now, and exit code 1.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from ds4_agent.agent.prompt.worked.play import PlayError, play
from ds4_agent.agent.prompt.worked.render import rendered
from ds4_agent.agent.prompt.worked.source import Session, SourceError, load_sessions
from ds4_agent.agent.prompt.worked.stage import StageError

HANDBOOK = Path(__file__).parents[1] / "handbook"


def main(arguments: Sequence[str] | None = None, handbook: Path = HANDBOOK) -> int:
    """Exit code: 0 written or the same, 1 different, 2 a session that cannot be played."""
    parser = argparse.ArgumentParser(prog="python -m ds4_agent.agent.prompt.worked")
    parser.add_argument("names", nargs="*", metavar="NAME", help="sessions, as in 60-bug-fix")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    chosen = parser.parse_args(arguments)
    try:
        sessions = _chosen(chosen.names)
        texts = {session.name: rendered(session, play(session)) for session in sessions}
    except (SourceError, StageError, PlayError) as error:
        print(error, file=sys.stderr)
        return 2
    different = 0
    for name, text in texts.items():
        path = handbook / f"{name}.md"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        different += before != text
        if chosen.check:
            sys.stderr.writelines(_difference(path.name, before, text))
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if chosen.check and different else 0


def _chosen(names: Sequence[str]) -> list[Session]:
    sessions = load_sessions()
    known = [session.name for session in sessions]
    for name in names:
        if name not in known:
            raise SourceError(f"there is no session {name}; there are {', '.join(known)}")
    return [session for session in sessions if not names or session.name in names]


def _difference(name: str, before: str, now: str) -> list[str]:
    old, new = before.splitlines(keepends=True), now.splitlines(keepends=True)
    return list(difflib.unified_diff(old, new, f"{name} as it stands", f"{name} as played now"))


if __name__ == "__main__":
    sys.exit(main())
