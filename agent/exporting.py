"""A session of this run written to a file: Markdown, or JSON where the name ends so.

In: the session's directory, a file. Out: the file, whole, and never in the place of another.
Raises UsageError and OutputError.
"""

from __future__ import annotations

from pathlib import Path

from ds4_agent.agent.errors import UsageError

__all__ = ["export_session"]


def export_session(session: Path, file: Path) -> None:
    """Write what was said in `session` to `file`."""
    from ds4_agent.agent.printing import check_writable, to_json, write_atomically
    from ds4_agent.agent.session_contents import whole
    from ds4_agent.agent.session_entries import entries
    from ds4_agent.agent.session_markdown import markdown
    from ds4_agent.sessions.lines import read_lines
    from ds4_agent.sessions.summary import EVENTS, read_summary

    if file.exists() or file.is_symlink():
        raise UsageError(f"{file} is there already; name another file")
    check_writable(file)
    try:
        lines = read_lines(session / EVENTS)
    except OSError as error:
        raise UsageError(f"the session cannot be read: {error.strerror or error}") from error
    if not lines.records:
        raise UsageError("nothing was said in this session yet")
    summary = read_summary(session)
    if file.suffix == ".json":
        text = to_json(whole(summary, lines)) + "\n"
    else:
        text = markdown(summary, entries(lines.records), lines.damaged)
    write_atomically(file, text)
