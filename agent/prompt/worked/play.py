"""Plays a session: its calls are run by the real tools, in order, and what they answer is kept.

In: a session. Out: its turns with the results. Only what differs from run to run is made the same:
the temporary directory's name, the seconds a test run took, the date of a commit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.agent.prompt.worked.source import Session, Step, WrittenCall
from ds4_agent.agent.prompt.worked.stage import Stage, date_of_last_commit, stage

SECONDS = re.compile(r"^(Ran \d+ tests? in )\d+\.\d+s$", re.MULTILINE)
COMMITTED = re.compile(r"^Committed [0-9a-f]{7,}:")


class PlayError(Exception):
    """A call did not end as the session says it does."""


@dataclass(frozen=True)
class Played:
    """One turn of the model and the answers to its calls, in their order."""

    step: Step
    results: tuple[str, ...]


def play(session: Session) -> list[Played]:
    """Every step with its results. Raises PlayError."""
    with stage(session) as place:
        return [_played(session, step, place) for step in session.steps]


def _played(session: Session, step: Step, place: Stage) -> Played:
    if step.meanwhile:
        place.shell(step.meanwhile)
    return Played(step, tuple(_result(session, call, place) for call in step.calls))


def _result(session: Session, call: WrittenCall, place: Stage) -> str:
    if call.name == "bash_status":
        # A model takes seconds to write its next turn; here the job has to be waited for.
        place.context.processes.jobs[call.arguments["job"]].done.wait(60)
    done = place.call(call.name, call.arguments)
    if done.is_error != call.fails:
        raise PlayError(f"{session.name}: {call.name} {dict(call.arguments)}\n{done.content}")
    content = done.content
    if COMMITTED.match(content):
        date_of_last_commit(place)
        name = place.call("git", {"action": "log", "max_count": 1}).content.split()[0]
        content = COMMITTED.sub(f"Committed {name}:", content)
    return _steady(content, place.root, session.root)


def _steady(content: str, real: Path, shown: str) -> str:
    return SECONDS.sub(r"\g<1>0.004s", content.replace(str(real), shown))
