"""Changes of files as a patch that `git apply` takes, byte for byte.

In: a path, the bytes before and after. Out: the patch's bytes, and how many lines it adds and
removes. Exact for any encoding; bounded work for long files.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.agent.repository import repository_top

__all__ = ["FilePatch", "file_patch", "patch_root"]

COMPARED = 4000  # lines between the common ends that are compared; more are replaced as a whole
CONTEXT = 3


@dataclass(frozen=True)
class FilePatch:
    """The patch of one file. `data` is empty where nothing changes."""

    data: bytes
    added: int = 0
    removed: int = 0


def patch_root(directory: Path) -> Path:
    """What the names in a patch are relative to: the top of the repository that holds `directory`,
    since `git apply` reads them so wherever in it it runs; without one, `directory` itself."""
    return repository_top(directory) or directory


def file_patch(path: str, before: bytes | None, after: bytes | None) -> FilePatch:
    """The patch that makes `before` into `after`; None is no file."""
    if before == after:
        return FilePatch(b"")
    old, new = _lines(before or b""), _lines(after or b"")
    hunks, added, removed = _hunks(old, new)
    old_name, new_name = _quoted("a/" + path), _quoted("b/" + path)
    header = f"diff --git {old_name} {new_name}\n"
    if before is None:
        header += "new file mode 100644\n"
    elif after is None:
        header += "deleted file mode 100644\n"
    if hunks:  # an empty file has none
        end = "\t\n" if " " in path else "\n"  # as git and diff end a name with blanks
        header += "--- /dev/null\n" if before is None else f"--- {old_name}{end}"
        header += "+++ /dev/null\n" if after is None else f"+++ {new_name}{end}"
    return FilePatch(header.encode("utf-8", "surrogateescape") + hunks, added, removed)


def _lines(data: bytes) -> list[str]:
    """Lines with their ends, cut at "\\n" only; latin-1 stands for any byte."""
    found = data.decode("latin-1").split("\n")
    return [line + "\n" for line in found[:-1]] + ([found[-1]] if found[-1] else [])


def _hunks(old: list[str], new: list[str]) -> tuple[bytes, int, int]:
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    blocks = _grouped(_opcodes(old, new, start, end))
    out: list[str] = []
    added = removed = 0
    for block in blocks:
        out.append(_header(block))
        for tag, i1, i2, j1, j2 in block:
            if tag == "equal":
                out += [_ended(" " + line) for line in old[i1:i2]]
                continue
            out += [_ended("-" + line) for line in old[i1:i2]]
            out += [_ended("+" + line) for line in new[j1:j2]]
            removed, added = removed + i2 - i1, added + j2 - j1
    return "".join(out).encode("latin-1"), added, removed


Block = tuple[str, int, int, int, int]


def _opcodes(old: list[str], new: list[str], start: int, end: int) -> list[Block]:
    """What makes `old` into `new`; only what lies between the common ends is compared."""
    old_end, new_end = len(old) - end, len(new) - end
    if max(old_end, new_end) - start > COMPARED:
        middle: list[Block] = [("replace", start, old_end, start, new_end)]
    else:
        one, other = old[start:old_end], new[start:new_end]
        found = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
        middle = [
            (tag, i1 + start, i2 + start, j1 + start, j2 + start) for tag, i1, i2, j1, j2 in found
        ]
    before: Block = ("equal", 0, start, 0, start)
    return [before, *middle, ("equal", old_end, len(old), new_end, len(new))]


def _grouped(blocks: list[Block]) -> list[list[Block]]:
    """Hunks: changes with their context, apart where more than two contexts lie between them."""
    hunks: list[list[Block]] = []
    hunk: list[Block] = []
    for block in blocks:
        tag, i1, i2, j1, j2 = block
        if tag != "equal":
            hunk.append(block)
            continue
        if not any(other[0] != "equal" for other in hunk):  # the first one
            hunk = [(tag, max(i1, i2 - CONTEXT), i2, max(j1, j2 - CONTEXT), j2)]
        elif i2 - i1 <= 2 * CONTEXT and block is not blocks[-1]:
            hunk.append(block)
        else:
            hunks.append([*hunk, (tag, i1, min(i2, i1 + CONTEXT), j1, min(j2, j1 + CONTEXT))])
            hunk = [(tag, max(i1, i2 - CONTEXT), i2, max(j1, j2 - CONTEXT), j2)]
    return hunks


def _header(block: list[Block]) -> str:
    old = _span(block[0][1], block[-1][2])
    new = _span(block[0][3], block[-1][4])
    return f"@@ -{old} +{new} @@\n"


def _span(start: int, stop: int) -> str:
    length = stop - start
    first = start + 1 if length else start
    return f"{first}" if length == 1 else f"{first},{length}"


def _common(one: list[str], other: list[str]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def _ended(line: str) -> str:
    return line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def _quoted(name: str) -> str:
    """As git writes a name that would not be read back otherwise."""
    if not re.search(r'[\x00-\x1f\x7f"\\]', name):
        return name
    escapes = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c) or _octal(c) for c in name) + '"'


def _octal(character: str) -> str:
    return f"\\{ord(character):03o}" if ord(character) < 32 or character == "\x7f" else character
