"""What a prompt is made of: segments, never one string. A control segment is one control token
written by us; template is our own wording; data is everybody else's text. Only control segments
ever become control ids: data that spells a control token stays ordinary text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ASSISTANT",
    "BOS",
    "DSML",
    "END_THINK",
    "EOS",
    "LATEST_REMINDER",
    "THINK",
    "USER",
    "Segment",
    "control",
    "data",
    "markup",
    "spell",
    "template",
]

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK = "<think>"
END_THINK = "</think>"
# The brackets around it, `<`, `</` and `>`, are ordinary text.
DSML = "｜DSML｜"
LATEST_REMINDER = "<｜latest_reminder｜>"
_TASKS = tuple(
    f"<｜{name}｜>" for name in ("action", "query", "authority", "domain", "title", "read_url")
)
_MARKUP = re.compile(
    "("
    + "|".join(
        re.escape(text)
        for text in (BOS, EOS, USER, ASSISTANT, THINK, END_THINK, DSML, LATEST_REMINDER, *_TASKS)
    )
    + ")"
)


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt. `text` of a control segment is the spelling of exactly one token."""

    kind: Literal["control", "template", "data"]
    text: str


def control(text: str) -> Segment:
    """One control token by its spelling, e.g. `control(EOS)`."""
    return Segment("control", text)


def template(text: str) -> Segment:
    """Wording of the prompt format itself. Never holds a control token; see `markup`."""
    return Segment("template", text)


def data(text: str) -> Segment:
    """Text that came from a user, a file, a tool or a model. Encoded as plain text, whatever it
    spells."""
    return Segment("data", text)


def markup(text: str) -> list[Segment]:
    """Our own text in which spelled control tokens mean themselves, cut at them.

    Only for text this program wrote (the TOOLS block, a script of the scripted model): of foreign
    text it would make exactly the forgery that segments exist to prevent.
    """
    return [
        control(part) if index % 2 else template(part)
        for index, part in enumerate(_MARKUP.split(text))
        if part
    ]


def spell(segments: Iterable[Segment]) -> str:
    """The prompt as people read it. Not for tokenising: the kinds are lost."""
    return "".join(segment.text for segment in segments)
