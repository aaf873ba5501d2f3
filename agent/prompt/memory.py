"""The notes a project keeps for its agents: AGENTS.md, or CLAUDE.md where there is none.

In: the working directory and the user's own AGENTS.md. Out: one text for the prompt, outermost file
first, and notices of what is not in it. Only text is read, never run; nothing outside the
repository is; and nothing is left out without a word.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.agent.repository import repository_top
from ds4_agent.tools.types import ToolError
from ds4_agent.tools.workspace import OutsideError, Workspace, printable

__all__ = ["BUDGET", "Memory", "gather_memory"]

BUDGET = 32 * 1024  # bytes of all notes together, headings included
NAMES = ("AGENTS.md", "CLAUDE.md")  # the first that a directory has
_CUT_WORDS = 100  # bytes kept free for the sentence that says what was cut


@dataclass(frozen=True)
class Memory:
    """`text` is "" without any notes. `notices` are one line each, for the user."""

    text: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Note:
    heading: str
    shown: str
    text: str


def gather_memory(directory: Path, own: Path) -> Memory:
    """The notes for work in `directory`: the user's `own` file, then those from the repository's
    root down to `directory`. Outside a repository only those of `directory` itself."""
    notices: list[str] = []
    notes: list[_Note] = []
    seen: set[Path] = set()  # CLAUDE.md is often a link to AGENTS.md, here or further up
    for shown, workspace, path in _candidates(directory, own):
        try:
            place = workspace.locate(os.fspath(path))
            text = "" if place.real in seen else _text(workspace.read(place).data)
            seen.add(place.real)
        except OutsideError:
            notices.append(f"{shown} is not read: it is a link that leaves the repository")
        except ToolError as error:
            notices.append(f"{shown} is not read: {error}")
        except UnicodeDecodeError:
            notices.append(f"{shown} is not read: it is not UTF-8 text")
        else:
            if text:
                whose = "of the user" if path == own else "of this project"
                notes.append(_Note(f"# Notes {whose}: {shown}\n\n", shown, text))
    parts = list(_within_budget(notes, notices))
    return Memory("\n\n".join(parts), tuple(notices))


def _candidates(directory: Path, own: Path) -> Iterator[tuple[str, Workspace, Path]]:
    """(name to show, the workspace it must lie in, path) of each file there is, outermost first."""
    if os.path.lexists(own):
        # The user's own file may be a link anywhere: dotfiles are kept so.
        yield printable(os.fspath(own)), Workspace(Path(os.path.realpath(own)).parent), own
    inner = Path(os.path.realpath(directory))
    above = [inner, *inner.parents]
    top = repository_top(inner) or inner
    root = Workspace(top)
    for place in reversed(above[: above.index(top) + 1]):
        path = next((place / name for name in NAMES if os.path.lexists(place / name)), None)
        if path is not None:
            yield printable(os.fspath(path.relative_to(root.root))), root, path


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig").strip("\r\n")


def _within_budget(notes: Sequence[_Note], notices: list[str]) -> Iterator[str]:
    """Each note with its heading. Where all are too much, short ones stay whole and the long ones
    share what is left: the innermost file, which says most about this place, is not the victim."""
    room = BUDGET - sum(len(note.heading.encode()) for note in notes) - 2 * (len(notes) - 1)
    sizes = [len(note.text.encode()) for note in notes]
    shares: dict[int, int] = {}
    for count, index in enumerate(sorted(range(len(notes)), key=sizes.__getitem__)):
        shares[index] = min(sizes[index], max(0, room // (len(notes) - count)))
        room -= shares[index]
    for index, note in enumerate(notes):
        if shares[index] == sizes[index]:
            yield note.heading + note.text
            continue
        kept = _head(note.text, max(0, shares[index] - _CUT_WORDS))
        shown, whole = f"{len(kept.encode()):,}", f"{sizes[index]:,}"
        ending = f"[cut here: {shown} of {whole} bytes; read the file for the rest]"
        yield f"{note.heading}{kept}\n{ending}"
        notices.append(
            f"{note.shown} is cut in the prompt: {shown} of {whole} bytes (the limit for all notes "
            f"is {BUDGET // 1024} KiB)"
        )


def _head(text: str, size: int) -> str:
    """At most `size` bytes of whole lines; of one endless line, whole characters."""
    head = text.encode()[:size].decode("utf-8", "ignore")
    lines = head.rpartition("\n")[0]
    return lines or head
