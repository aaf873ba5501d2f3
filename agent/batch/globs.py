"""Path patterns of a batch: `src/**/*.py`, `tests/test_{a,b}.py`, a plain path.

In: a pattern and paths relative to the directory worked in, with `/`. Out: whether they fit. `*`,
`?` and `[…]` stay within a folder, `**` crosses folders, `{a,b}` is either.
"""

from __future__ import annotations

import posixpath
import re
from functools import cache

from ds4_agent.agent.errors import UsageError

__all__ = ["fits", "literal", "normal"]

_PIECES = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|[{},]|[^*?\[{},]+|\[")


def fits(pattern: str, path: str) -> bool:
    """Whether `path` is what `pattern` (`normal`) speaks of. A path is always its own pattern."""
    return path == pattern or _compiled(pattern).fullmatch(path) is not None


def normal(pattern: str) -> str:
    """The pattern without `./`, `//` and `a/../`. Raises UsageError where it leads outside."""
    plain = posixpath.normpath(pattern) if pattern else ""
    if not plain or plain == "." or plain.startswith("/") or plain.split("/")[0] == "..":
        raise UsageError(f"`{pattern}` is no pattern for files below the directory; see -C DIR")
    return plain


def literal(text: str) -> str:
    """A pattern for exactly `text`, whatever it holds."""
    return re.sub(r"[*?\[\]{},]", lambda found: f"[{found.group()}]", text)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    special = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = _PIECES.findall(pattern)
    braces = "{" in pieces and pieces.count("{") == pieces.count("}")
    out, depth = [], 0
    for piece in pieces:
        if piece in special:
            out.append(special[piece])
        elif braces and piece == "{":
            out.append("(?:")
            depth += 1
        elif braces and piece == "}" and depth:
            out.append(")")
            depth -= 1
        elif piece == "," and depth:
            out.append("|")
        elif piece.startswith("[") and len(piece) > 2:
            out.append(_class(piece))
        else:
            out.append(re.escape(piece))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise UsageError(f"the pattern `{pattern}` is wrong: {error}") from error


def _class(piece: str) -> str:
    """`[a-z]`, `[!a]`: never a slash."""
    inner = piece[1:-1]
    negated = inner.startswith("!")
    inner = inner.removeprefix("!").replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
    inner = inner.replace("]", r"\]")
    return f"[^/{inner}]" if negated else f"(?!/)[{inner}]"
