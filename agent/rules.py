"""Permission rules: `Tool` or `Tool(pattern)`, as in `--allowed-tools "bash(git log:*)"`.

In: rule texts, then calls. Out: whether a rule speaks of a call. A rule never says yes by accident:
a command line of several parts, or with anything the shell expands, matches no allowing pattern,
and matches a denying one as soon as any of its parts does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from ds4_agent.agent.errors import UsageError

__all__ = ["Rule", "allowed_by", "denied_by", "parse_rules", "subject"]

_RULE = re.compile(r"\s*([\w*?-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
# What makes a command line more than one plain command. Quotes are plain to the shell only where
# nothing inside them is expanded, and `#`, `~`, `{`, `[` change what the words are: all of it asks.
_NOT_PLAIN = re.compile(r"[^\w\s./:=@%+,'\"-]")
_PART = re.compile(r"&&|\|\||[;|&\n()`{}]|\$\(")
# The argument a pattern is compared with, by tool; for others their first argument.
_SUBJECT = {"bash": "command", "git": "action"}


@dataclass(frozen=True)
class Rule:
    """`tool` may hold `*`; `pattern` None speaks of every call of it."""

    tool: str
    pattern: str | None
    text: str


def parse_rules(texts: Iterable[str], known: Sequence[str]) -> tuple[Rule, ...]:
    """The rules of comma- or blank-separated texts. Raises UsageError for a rule that cannot be
    meant: a typing error in a refusal would otherwise allow what it forbids."""
    rules = []
    for text in texts:
        for piece in _split(text):
            match = _RULE.fullmatch(piece)
            if match is None:
                raise UsageError(f"`{piece}` is no permission rule; write Tool or Tool(pattern)")
            pattern = match[2] if match[2] not in (None, "", "*") else None
            rule = Rule(match[1].lower(), pattern, piece.strip())
            if not any(fnmatchcase(name, rule.tool) for name in known):
                raise UsageError(f"no tool `{match[1]}`; there are {', '.join(known)}")
            rules.append(rule)
    return tuple(rules)


def allowed_by(rules: Iterable[Rule], tool: str, arguments: Mapping[str, Any]) -> Rule | None:
    """The first rule that allows the whole call."""
    for rule in rules:
        if fnmatchcase(tool, rule.tool) and _allows(rule, tool, arguments):
            return rule
    return None


def denied_by(rules: Iterable[Rule], tool: str, arguments: Mapping[str, Any]) -> Rule | None:
    """The first rule that speaks of the call or of any part of its command line."""
    for rule in rules:
        if fnmatchcase(tool, rule.tool) and _denies(rule, tool, arguments):
            return rule
    return None


def subject(tool: str, arguments: Mapping[str, Any]) -> str:
    """What a pattern is compared with: a command, a git action, a path."""
    name = _SUBJECT.get(tool) or ("path" if "path" in arguments else next(iter(arguments), ""))
    value = arguments.get(name, "")
    text = value if isinstance(value, str) else str(value)
    return text.strip() if tool in _SUBJECT else _normal_path(text)


def _allows(rule: Rule, tool: str, arguments: Mapping[str, Any]) -> bool:
    if rule.pattern is None:
        return True
    text = subject(tool, arguments)
    if tool == "bash" and (_NOT_PLAIN.search(text) or "\n" in text):
        return text == rule.pattern  # word for word as the user wrote it
    return _matches(rule.pattern, text, tool)


def _denies(rule: Rule, tool: str, arguments: Mapping[str, Any]) -> bool:
    if rule.pattern is None:
        return True
    text = subject(tool, arguments)
    parts = [text, *_PART.split(text)] if tool == "bash" else [text]
    return any(_matches(rule.pattern, part.strip(), tool) for part in parts)


def _matches(pattern: str, text: str, tool: str) -> bool:
    if pattern.endswith(":*"):  # a command and any arguments, as Claude Code writes it
        prefix = pattern[:-2].rstrip()
        return text == prefix or text.startswith(prefix + " ")
    if tool in _SUBJECT:
        return fnmatchcase(text, pattern)
    return _glob(_normal_path(pattern)).fullmatch(text) is not None


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    """A path pattern: `*` and `?` stay within a folder, `**` crosses folders."""
    out = []
    for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        special = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        out.append(special.get(piece, re.escape(piece)))
    return re.compile("".join(out), re.DOTALL)


def _normal_path(text: str) -> str:
    """`./a//b` and `a/x/../b` are `a/b`: a rule must not be passed by another spelling."""
    parts: list[str] = []
    for part in text.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return ("/" if text.startswith("/") else "") + "/".join(parts)


def _split(text: str) -> list[str]:
    """Split at commas and blanks outside parentheses."""
    pieces, depth, current = [], 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth <= 0 and (character == "," or character.isspace()):
            pieces.append(current)
            current = ""
        else:
            current += character
    return [piece for piece in (*pieces, current) if piece]
