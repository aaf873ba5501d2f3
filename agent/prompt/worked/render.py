"""A played session as the Markdown that stands in the handbook.

In: the session, its turns. Out: a heading and the transcript as a chapter writes it: calls and
results in fences (`handbook.py` renders them), who speaks told in words. The marks between turns
are nowhere spelled: a model that reads them as text would write them as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ds4_agent.agent.prompt.worked.play import Played
from ds4_agent.agent.prompt.worked.source import Session, SourceError, WrittenCall

_FENCE_END = re.compile(r"^```$", re.MULTILINE)


def rendered(session: Session, turns: Sequence[Played]) -> str:
    """The part of the handbook, with a newline at its end. Raises SourceError where a call or a
    result holds the end of a fence."""
    parts = [f"## {session.title}", f"User: {session.request}"]
    for turn in turns:
        parts += _turn(turn)
    for part in parts:
        if len(_FENCE_END.findall(part)) > part.startswith("```"):
            raise SourceError(f"{session.name}: a line of three backticks would end its fence")
    return "\n\n".join(parts) + "\n"


def _turn(turn: Played) -> list[str]:
    step = turn.step
    parts = [f"You think: {step.think}"] if step.think else []
    if step.say:
        parts.append(f"You {'say' if step.calls else 'answer'}: {step.say}")
    if step.calls:
        parts.append(_fence("call", "\n".join(map(_written, step.calls))))
    return [*parts, *(_fence("result", result) for result in turn.results)]


def _fence(kind: str, text: str) -> str:
    return f"```{kind}\n{text}\n```"


def _written(call: WrittenCall) -> str:
    arguments = ", ".join(f"{name}={_literal(value)}" for name, value in call.arguments.items())
    return f"{call.name}({arguments})"


def _literal(value: Any) -> str:
    """A value as Python, a text of several lines so that people can read it."""
    is_plain = isinstance(value, str) and not re.search(r"'''|'$|[\\\r]|```", value)
    return f"'''{value}'''" if is_plain and "\n" in value else repr(value)
