"""A played session as the Markdown that stands in the prompt.

In: the session, its turns. Out: a heading and the transcript exactly as the encoder spells it. In
the prompt it is data: what looks like control tokens here is never encoded as such.
"""

from __future__ import annotations

from collections.abc import Sequence

from ds4_agent.agent.prompt.worked.play import Played
from ds4_agent.agent.prompt.worked.source import Session
from ds4_agent.engine.dsml.encode import (
    assistant_header,
    call_segments,
    end_of_turn,
    tool_result_segments,
    user_segments,
)
from ds4_agent.engine.dsml.segments import END_THINK, Segment, control, data, spell


def rendered(session: Session, turns: Sequence[Played]) -> str:
    """The part of the handbook, with a newline at its end."""
    segments = user_segments(session.request)
    for turn in turns:
        segments += _turn(turn)
    return f"## {session.title}\n\n{spell(segments)}\n"


def _turn(turn: Played) -> list[Segment]:
    step = turn.step
    return [
        *assistant_header(thinking=True),
        data(step.think),
        control(END_THINK),
        data(step.say),
        *call_segments(step.calls),
        *end_of_turn(),
        *(tool_result_segments(turn.results) if turn.results else ()),
    ]
