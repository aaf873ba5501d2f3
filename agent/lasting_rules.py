"""Rules that an answer to a question leaves behind: in config.toml, for all sessions to come.

In: a call that was asked about. Out: the rule that allows it again, and config.toml with that rule
added, its comments and layout kept. A rule is only offered where it means this very call: its text
has no sign that a pattern reads otherwise, and nothing a reader would not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds4_agent.agent.config_file import change_config
from ds4_agent.agent.display import has_hidden
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.rules import allowed_by, parse_rules, subject

__all__ = ["add_allow_rule", "rule_for"]

_PATTERN = set("*?[]")
_OF_PATHS = ("read", "write", "edit", "list", "search")
LONGEST = 400  # characters: what nobody reads to its end is not allowed for ever


def rule_for(tool: str, effect: str, arguments: Mapping[str, Any], outside: str) -> str:
    """The rule for calls like this one, "" where none means just them.

    `outside`: where the path leads, if out of the workspace: then the rule names that place.
    """
    is_command = tool == "bash"
    if not is_command and (effect == "execute" or tool not in _OF_PATHS):
        return ""  # of a git action or a plugin the rule would speak of too much
    really = {**arguments, "path": outside} if outside else arguments
    pattern = subject(tool, really)
    if is_command and set(arguments) != {"command"}:
        return ""
    if not pattern or len(pattern) > LONGEST or "\n" in pattern or has_hidden(pattern):
        return ""
    if set(pattern) & _PATTERN or pattern.endswith(":*"):
        return ""
    text = f"{tool}({pattern})"
    try:
        rules = parse_rules([text], [tool])
    except UsageError:
        return ""
    is_it = len(rules) == 1 and rules[0].pattern == pattern and allowed_by(rules, tool, really)
    return text if is_it else ""


def add_allow_rule(config_file: Path, rule: str) -> None:
    """Add `rule` to [permissions] allow. Raises UsageError with the file as it was."""
    import tomlkit

    def add(document: Any) -> bool:
        table = document.setdefault("permissions", tomlkit.table())
        rules = table.setdefault("allow", [])
        if rule in rules:
            return False
        rules.append(rule)
        return True

    change_config(config_file, add, "add a rule to")
