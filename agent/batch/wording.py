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

__all__ = ["check_output_prompt", "item_command", "item_pattern", "item_prompt", "second_prompt"]

_PLACE = re.compile(r"\{(path|item((?:\.[\w-]+)+))\}")
OUTPUT_SHOWN = 6000  # characters of a failed check's output that the model reads


def item_prompt(template: str, item: Item) -> str:
    """The prompt of an item. A template that speaks of no file gets the file's name at its end.
    Raises UsageError for a field that the item does not have."""
    if not _PLACE.search(template):
        return f"{template} in {item.path}" if item.path else template
    return _filled(template, item, lambda text: text)


def item_command(template: str, item: Item) -> str:
    """A shell command; what is put in is quoted for the shell. Raises UsageError."""
    return _filled(template, item, shlex.quote)


def item_pattern(template: str, item: Item) -> str:
    """A path pattern; what is put in stands for itself alone. Raises UsageError."""
    return _filled(template, item, literal)


def check_output_prompt(command: str, ending: str, output: str) -> str:
    """What the model is told when the check failed on what it did."""
    return f"The check `{command}` failed: {ending}.\n{_shortened(output)}\nCorrect your change."


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
