"""What a bash command line would run, as far as its text tells.

In: a command line. Out, for allowing: its simple commands, each exactly as written, or why it is
not plain. Out, for forbidding: every command that may run in it, wherever it stands. Never a yes by
accident: what is not understood is not plain, and when forbidding it may be anything.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

__all__ = [
    "NotPlain", "Plain", "Possible", "argument_words", "plain_commands", "possible_commands",
]  # fmt: skip

LONGEST = 10_000  # characters; a longer command line is nothing a rule has been written for
MOST_PARTS = 30
RAW_WORDS = 64  # words a candidate from unparsed text has: enough for any pattern's words

# Unquoted, only characters without a meaning to the shell; in quotes, whatever it leaves alone.
_PLAIN_TEXT = re.compile(r"""(?:[\w./:@%+,=-]|[ ]|'[^'\n]*'|"[^"$`\\\n]*")+""")
_COMMAND_WORD = re.compile(r"[\w./:@%+,-]+")
_BETWEEN = re.compile(r"(?:[ \n;|]|&&|\|&)*")
_REDIRECTION = re.compile(r"(?:\d*|&)(?:>>?|<|>\||>&) ?/dev/null|\d*[<>]&(?:\d+|-)")
_SEPARATORS = {";", "&&", "||", "|", "|&", "\n"}
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "busybox"}
# Run a text that stands in quotes, or that they are given on stdin.
_TEXT_RUNNERS = {
    *_SHELLS, ".", "alias", "eval", "mapfile", "readarray", "source", "su",
    "trap",
}  # fmt: skip
# Builtins that expand the subscript of a quoted `a[$(…)]`; so do assignments, `[[` and `((`.
_EXPAND_SUBSCRIPTS = {"let", "printf", "read", "test", "wait"}
# Commands that run the command among their arguments.
_WRAPPERS = {
    "!", "builtin", "caffeinate", "chroot", "command", "coproc", "doas", "env", "exec", "find",
    "flock", "ionice", "nice", "nohup", "parallel", "script", "setsid", "stdbuf", "strace", "sudo",
    "time", "timeout", "unshare", "watch", "xargs",
}  # fmt: skip
_WORD_TYPES = {"word", "number", "string", "raw_string", "concatenation", "simple_expansion"}
_UNKNOWN = "\0"  # in a word: here stands what only the shell knows (a command holds no NUL)


@dataclass(frozen=True)
class Plain:
    """Simple commands joined by `;`, newline, `&&`, `||` or `|`, each as it is written."""

    parts: tuple[str, ...]


@dataclass(frozen=True)
class NotPlain:
    """More than plain commands; `reason` says what, in a few words."""

    reason: str


@dataclass(frozen=True)
class Possible:
    """A command that may run, quotes taken off. `is_open`: after `text` may come anything."""

    text: str
    is_open: bool = False


def plain_commands(command: str) -> Plain | NotPlain:
    """The simple commands of a command line in which nothing is expanded, set or redirected.

    Redirections to /dev/null and between descriptors are plain, and no part of a command's text.
    """
    if len(command) > LONGEST:
        return NotPlain(f"it is longer than {LONGEST:,} characters")
    if not command.replace("\n", " ").isprintable():
        return NotPlain("it holds characters that cannot be seen")
    source = command.encode()
    root = _parser().parse(source).root_node
    if root.has_error:
        return NotPlain("it does not parse")
    try:
        spans = list(_plain_spans(root))
    except _NotPlainError as error:
        return NotPlain(str(error))
    parts = [source[start:end].decode() for start, end, is_part in spans if is_part]
    if not _BETWEEN.fullmatch(_outside(source, spans)):
        return NotPlain("it holds more than commands")
    if not 0 < len(parts) <= MOST_PARTS:
        return NotPlain(f"it has {len(parts)} commands" if parts else "it is empty")
    return Plain(tuple(parts))


def possible_commands(command: str) -> Iterator[Possible]:
    """Every command that may run in this command line, and more: for refusing and for asking.

    Also those inside substitutions, functions and loops, behind `sudo`, `env` and the like, by
    their bare name where a path is given. Where the text is run again (`sh -c`, `eval`) or does not
    parse, each of its words may begin a command.
    """
    yield Possible(command)
    joined = command.replace("\\\n", "")  # the shell joins lines before it sees words
    for text in dict.fromkeys((command, joined)):
        yield from _possible_in(text)


def argument_words(command: str) -> Iterator[str]:
    """Every argument, redirection and value in a command line, quotes taken off; a word that begins
    with what only the shell knows is as it is written (`$HOME/x`)."""
    for node in _nodes(_parser().parse(command.encode("utf-8", "replace")).root_node):
        if node.type not in _WORD_TYPES or node.parent is None:
            continue
        if node.parent.type in ("command", "file_redirect", "for_statement", "variable_assignment"):
            text = _text(node).strip('"')
            yield text if text.startswith("$") else _value(node)


class _NotPlainError(Exception):
    """Says what is not plain."""


@cache
def _parser() -> Parser:
    # Imported here: --help and a run without rules for commands need none of it.
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_bash.language()))


def _plain_spans(root: Node) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is a command) of each command and redirection, in order."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type == "command":
            _check_command(node)
            yield node.start_byte, node.end_byte, True
        elif node.type == "file_redirect":
            if not _REDIRECTION.fullmatch(_text(node)):
                raise _NotPlainError("it redirects to a file")
            yield node.start_byte, node.end_byte, False
        elif node.type in ("program", "list", "pipeline", "redirected_statement"):
            waiting.extend(reversed(node.children))
        elif node.type not in _SEPARATORS:
            raise _NotPlainError(f"it holds `{node.type}`")


def _check_command(node: Node) -> None:
    text = _text(node)
    if not _PLAIN_TEXT.fullmatch(text):
        raise _NotPlainError("the shell would expand or change its words")
    if any(child.type == "variable_assignment" for child in node.children):
        raise _NotPlainError("it sets a variable")
    words = list(_words(node))
    # A second reader: where two of them see different words, nobody knows what runs.
    if not words or words != shlex.split(text):
        raise _NotPlainError("its words are not clear")
    first = text.split(" ", 1)[0]
    if not _COMMAND_WORD.fullmatch(first) or "=" in words[0]:
        raise _NotPlainError("its command word is not plain")
    names = [_base(word) for word in words]
    shell = next((i for i, name in enumerate(names) if name in _SHELLS), len(names))
    is_text = any(re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*", word) for word in words[shell:])
    if is_text or names[0] in ("eval", "trap", "coproc"):
        raise _NotPlainError("it runs a text as a command")


def _outside(source: bytes, spans: Sequence[tuple[int, int, bool]]) -> str:
    """What stands between the spans."""
    pieces, last = [], 0
    for start, end, _ in sorted(spans):
        pieces.append(source[last:start])
        last = max(last, end)
    return b" ".join([*pieces, source[last:]]).decode()


def _possible_in(text: str) -> Iterator[Possible]:
    root = _parser().parse(text.encode("utf-8", "replace")).root_node
    runs_text = root.has_error or not text.replace("\n", " ").replace("\t", " ").isprintable()
    for node in _nodes(root):
        if node.type in ("command", "declaration_command", "unset_command"):
            words = list(_words(node))
            yield from _behind(words)
            runs_text = runs_text or _runs_text(words)
        elif node.type == "redirected_statement" and (taken := list(_taken_words(node))):
            body = [child for child in _nodes(node.children[0]) if child.type == "command"]
            yield from _behind([*(_words(body[-1]) if body else ()), *taken])
        runs_text = runs_text or _hides_commands(node)
    if runs_text:
        yield from _suffixes(_raw_words(text))


def _hides_commands(node: Node) -> bool:
    """Whether something in it may be run that is no node of the tree."""
    if node.type == "``":
        return True  # the grammar glues an empty substitution to the word behind the blank
    if node.type not in ("word", "raw_string", "string", "heredoc_redirect"):
        return False
    text = _text(node)
    if node.type == "word" and re.search(r"(?<!\\)\n", text):
        return True  # the grammar runs two lines together where the second begins with a backslash
    if not ("`" in text or "$(" in text):
        return False
    if node.type == "heredoc_redirect":  # the grammar sees only some of what the shell expands
        start = next((child for child in node.children if child.type == "heredoc_start"), node)
        return not re.search(r"['\"\\]", _text(start))
    if node.type == "word":
        return True  # `${x:-` with a backtick behind it
    if node.type == "string" and not re.search(r"\\[$`]", text):
        return False
    above = node.parent
    while above is not None and above.type != "command":
        above = above.parent
    return above is None or _base(next(_words(above), "")) in _EXPAND_SUBSCRIPTS


def _runs_text(words: Sequence[str]) -> bool:
    names = [_base(word) for word in words]
    if names and names[0] in _WRAPPERS:
        return not _SHELLS.isdisjoint(names) or "eval" in names
    return bool(names) and names[0] in _TEXT_RUNNERS


def _behind(words: Sequence[str]) -> Iterator[Possible]:
    """A command, and those it would run if it is a wrapper."""
    if not words:
        return
    yield from _by_name(words)
    if _base(words[0]) in _WRAPPERS:
        if len(words) > 1 and _base(words[1]).startswith(_UNKNOWN):
            yield Possible("", is_open=True)
        flat = [piece for word in words[1:] for piece in _raw_words(word)]
        yield from _suffixes(flat)
        # `env -S'git push'`: a command glued to the letter of an option.
        yield from _suffixes([re.sub(r"^-[A-Za-z](?=.)", "", piece) for piece in flat])


def _by_name(words: Sequence[str]) -> Iterator[Possible]:
    """A command under the name it is called by, and under its bare name."""
    for name in dict.fromkeys((words[0], _base(words[0]))):
        if _UNKNOWN in name and name != _base(words[0]):
            continue  # `$DIR/rm` is known by its bare name
        head, mark, _ = " ".join((name, *words[1:])).partition(_UNKNOWN)
        yield Possible(head, bool(mark))


def _suffixes(words: Sequence[str]) -> Iterator[Possible]:
    for index, word in enumerate(words):
        if not _base(word).startswith(_UNKNOWN):
            yield from _by_name(words[index : index + RAW_WORDS])


def _raw_words(text: str) -> list[str]:
    """The words of a text that may be shell code, without its quotes."""
    text = re.sub(r"\$\{?IFS\}?", " ", text)
    text = re.sub(r"\$?['\"]|\\", "", text)
    text = re.sub(r"\$\{\w+:?[-=+?]", " ", text)  # `${x:-git push}`
    text = re.sub(r"\$\w+|\$\{[^}\s]*\}|\$[@*#?]", _UNKNOWN, text)
    return [word for word in re.split(r"[\s;|&()<>{}=,`]+|\$", text) if word]


def _words(node: Node) -> Iterator[str]:
    """The words of a command without quotes, redirections and assignments in front."""
    for child in node.children:
        if child.type == "command_name":
            yield _value(child.children[0], is_name=True) if child.children else _text(child)
        elif child.type not in ("variable_assignment", "file_redirect", "herestring_redirect"):
            yield _value(child)


def _taken_words(node: Node) -> Iterator[str]:
    """Arguments behind a redirection (`git >file push`), which the grammar counts among its own."""
    for child in node.children[1:]:
        named = [part for part in child.named_children if part.type != "file_descriptor"]
        if child.type == "file_redirect":
            yield from map(_value, named[1:])
        elif child.type == "heredoc_redirect":
            yield from (_value(part) for part in named if part.type in _WORD_TYPES)


def _value(node: Node, *, is_name: bool = False) -> str:
    """A word as the command gets it; _UNKNOWN stands for what is expanded."""
    text = _text(node)
    if node.type in ("word", "number", "variable_name") or not node.is_named:
        if "{" in text or (is_name and re.search(r"(?<!\\)[*?[]", text)):
            return re.split(r"[{*?[]", text)[0] + _UNKNOWN
        return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "ansi_c_string":
        return _UNKNOWN if "\\" in text else text[2:-1]
    if node.type == "translated_string":
        return _value(node.children[-1])
    if node.type == "string":
        return _string_value(node)
    if node.type == "concatenation":
        return "".join(_value(child, is_name=is_name) for child in node.children)
    return _UNKNOWN


def _string_value(node: Node) -> str:
    """The inside of double quotes. The tree leaves line ends out, so it is cut from the bytes."""
    source, start = node.text or b"", node.start_byte
    pieces, last = [], 1
    for child in node.children[1:-1]:
        if child.type != "string_content":
            pieces += [source[last : child.start_byte - start], _UNKNOWN.encode()]
            last = child.end_byte - start
    text = b"".join([*pieces, source[last:-1]]).decode("utf-8", "replace")
    return re.sub(r'\\(["\\$`\n])', r"\1", text)


def _nodes(root: Node) -> Iterator[Node]:
    waiting = [root]  # not recursive: a command line can be nested deeper than Python's stack
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children))


def _base(word: str) -> str:
    return word.rsplit("/", 1)[-1]


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
