"""Permission rules: `Tool` or `Tool(pattern)`, as in `--allowed-tools "bash(git log:*)"`.

In: rule texts, then calls. Out: whether a rule speaks of a call. A rule never says yes by accident:
a command line is allowed when it is plain (`shell_syntax.py`) and each of its parts is allowed, and
it is refused or asked about as soon as any command that may run in it matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.shell_syntax import NotPlain, Possible, plain_commands, possible_commands

__all__ = ["Rule", "allowed_by", "denied_by", "parse_rules", "subject"]

_RULE = re.compile(r"\s*([\w*?-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
# The argument a pattern is compared with, by tool; for others their first argument.
_SUBJECT = {"bash": "command", "git": "action"}


@dataclass(frozen=True)
class Rule:
    """`tool` may hold `*`; `pattern` None speaks of every call of it."""

    tool: str
    pattern: str | None
    text: str

    def names_any(self, tools: Iterable[str]) -> bool:
        """Whether it speaks of any of these tools."""
        return any(fnmatchcase(name, self.tool) for name in tools)


def parse_rules(
    texts: Iterable[str], known: Sequence[str], *, is_typed: bool = True
) -> tuple[Rule, ...]:
    """The rules of comma- or blank-separated texts. Raises UsageError for a rule that cannot be
    meant: a typing error in a refusal would otherwise allow what it forbids. `is_typed`: for this
    run; a rule of config.toml may name a plugin that is not here today."""
    rules = []
    for text in texts:
        for piece in _split(text):
            match = _RULE.fullmatch(piece)
            if match is None:
                raise UsageError(f"`{piece}` is no permission rule; write Tool or Tool(pattern)")
            pattern = match[2] if match[2] not in (None, "", "*") else None
            rule = Rule(match[1].lower(), pattern, piece.strip())
            if is_typed and not rule.names_any(known):
                raise UsageError(f"no tool `{match[1]}`; there are {', '.join(known)}")
            rules.append(rule)
    return tuple(rules)


def allowed_by(rules: Iterable[Rule], tool: str, arguments: Mapping[str, Any]) -> Rule | None:
    """The rule that allows the call; of a command line with several parts that of the first."""
    own = [rule for rule in rules if fnmatchcase(tool, rule.tool)]
    text = subject(tool, arguments)
    for rule in own:
        if rule.pattern is None or (tool == "bash" and rule.pattern == text):
            return rule  # word for word as the user wrote it, whatever it is
    if not own or tool != "bash":
        return next((rule for rule in own if _matches(rule, text, tool)), None)
    command = plain_commands(text)
    if isinstance(command, NotPlain):
        return None
    found = [next((r for r in own if _matches(r, part, tool)), None) for part in command.parts]
    return found[0] if all(found) else None


def denied_by(rules: Iterable[Rule], tool: str, arguments: Mapping[str, Any]) -> Rule | None:
    """The first rule, refusing or asking, that speaks of the call or of any part of its command."""
    own = [rule for rule in rules if fnmatchcase(tool, rule.tool)]
    text = subject(tool, arguments)
    is_parsed = tool == "bash" and any(rule.pattern is not None for rule in own)
    heard = tuple(dict.fromkeys(possible_commands(text))) if is_parsed else (Possible(text),)
    for rule in own:
        if rule.pattern is None or any(_may_match(rule, part, tool) for part in heard):
            return rule
    return None


def subject(tool: str, arguments: Mapping[str, Any]) -> str:
    """What a pattern is compared with: a command, a git action, a path."""
    name = _SUBJECT.get(tool) or ("path" if "path" in arguments else next(iter(arguments), ""))
    value = arguments.get(name, "")
    text = value if isinstance(value, str) else str(value)
    # Only what bash skips as well: another blank in front makes another command.
    return text.strip(" \t\n") if tool in _SUBJECT else _normal_path(text)


def _matches(rule: Rule, text: str, tool: str) -> bool:
    pattern = rule.pattern or ""
    if pattern.endswith(":*"):  # a command and any arguments, as Claude Code writes it
        prefix = pattern[:-2].rstrip()
        return text == prefix or text.startswith(prefix + " ")
    if tool in _SUBJECT:
        return fnmatchcase(text, pattern)
    return _glob(_normal_path(pattern)).fullmatch(text) is not None


def _may_match(rule: Rule, heard: Possible, tool: str) -> bool:
    """Whether the pattern speaks of it, or of anything that it may turn out to be."""
    text, pattern = heard.text, rule.pattern or ""
    if _matches(rule, text, tool):
        return True
    if not heard.is_open:
        return False
    if pattern.endswith(":*"):
        return pattern[:-2].rstrip().startswith(text)
    # Some beginning of the pattern is all of what is known.
    return any(fnmatchcase(text, pattern[:end]) for end in range(len(pattern) + 1))


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
