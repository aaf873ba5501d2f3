"""What an item's model is told, and what a template's `{path}` and `{item.x}` stand for.

In: a template and an item. Out: the text. Other braces are left as they are: prompts hold code.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from ds4_agent.agent.batch.globs import literal
from ds4_agent.agent.batch.items import Item
from ds4_agent.agent.errors import UsageError

__all__ = [
    "check_output_prompt",
    "check_output_reason",
    "item_command",
    "item_pattern",
    "item_prompt",
    "second_prompt",
]

_PLACE = re.compile(r"\{(path|item((?:\.[\w-]+)+))\}")
NAMES = ("{path}", "{item.path}")  # of the item's file
OUTPUT_SHOWN = 6000  # characters of a failed check's output that the model reads


def item_prompt(template: str, item: Item) -> str:
    """The prompt of an item. A template that does not speak of the item's file gets its name at its
    end. Raises UsageError for a field that the item does not have."""
    filled = _filled(template, item, lambda text: text)
    is_named = any(found[0] in NAMES for found in _PLACE.finditer(template))
    return filled if is_named or not item.path else f"{filled} in {item.path}"


def item_command(template: str, item: Item) -> str:
    """A shell command; what is put in is quoted for the shell. Raises UsageError."""
    return _filled(template, item, shlex.quote)


def item_pattern(template: str, item: Item) -> str:
    """A path pattern; what is put in stands for itself alone. Raises UsageError."""
    return _filled(template, item, literal)


def check_output_prompt(command: str, ending: str, output: str) -> str:
    """What the model is told when the check failed on what it did."""
    return f"The check `{command}` failed: {ending}.\n{_shortened(output)}\nCorrect your change."


def check_output_reason(ending: str, output: str) -> str:
    """The same for the user, in one line: the last one that the check printed says what is wrong
    mostly."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"the check failed: {ending}" + (f": {lines[-1]}" if lines else "")


def second_prompt(prompt: str, told: str) -> str:
    """The prompt of a try that remembers nothing of the one before."""
    return f"{prompt}\n\nAn earlier try was taken back. {told}"


def _filled(template: str, item: Item, quoted: Callable[[str], str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] == "path":
            if not item.path:
                raise UsageError(f"{item.shown} has no path for {{path}}")
            return quoted(item.path)
        return quoted(_field(item, found[2].split(".")[1:]))

    return _PLACE.sub(value, template)


def _field(item: Item, names: list[str]) -> str:
    value: Any = item.fields
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            raise UsageError(f"{item.shown} has no field for {{item.{'.'.join(names)}}}")
        value = value[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shortened(text: str) -> str:
    """The end of an output, where what went wrong mostly stands."""
    text = text.strip("\n")
    if len(text) <= OUTPUT_SHOWN:
        return text
    return f"[… {len(text) - OUTPUT_SHOWN} characters left out]\n{text[-OUTPUT_SHOWN:]}"
