"""What is written down of a run while it happens: the session log, and a watch over other records.

In: events. Out: lines in the session log, and one sentence for each record that broke off. A record
that cannot be written never stops the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from ds4_agent.agent import events as ev
from ds4_agent.agent.lines import Lines

if TYPE_CHECKING:
    from ds4_agent.agent.rewind import Rewound
    from ds4_agent.agent.undo import TurnUndone
    from ds4_agent.engine.api import Engine
    from ds4_agent.sessions.log import SessionLog

__all__ = ["Record", "Recorder", "StoreRecord", "tools_line"]


class Record(Protocol):
    """A file that may break off; `failure` says so in one line then, else it is ""."""

    @property
    def failure(self) -> str: ...


class StoreRecord:
    """The states that an engine keeps on disk, as a record."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def failure(self) -> str:
        return self._engine.store_failure


class Recorder:
    """Writes a session's events into its log. `others` are records watched for failures."""

    def __init__(
        self,
        log: SessionLog | None,
        others: Sequence[Record],
        clock: Callable[[], float],
        *,
        header: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`clock` gives the time of each line, in seconds since 1970; `header` are the lines that
        come before the first. `log` None: nothing is kept of the session."""
        self._log = log
        self._watched: list[Record] = [*others] if log is None else [log, *others]
        self._clock = clock
        self._header = tuple(header)
        self._turn: Mapping[str, Any] = {}
        self._lines = Lines()
        self._told: set[str] = set()

    def record(self, event: ev.Event) -> None:
        """Log an event. Prompts, calls, results and the end of a turn are on the disk itself before
        this returns, and so before whatever follows from them."""
        if isinstance(event, ev.PrefillProgressed):
            return
        if isinstance(event, ev.TaskEvent):
            self._record_task(event)
            return
        if isinstance(event, ev.RunStarted):
            self._write({"type": "prompt", "text": event.prompt, **self._turn}, durable=True)
        lines = self._lines.feed(event)
        for line in lines:
            self._write(line | _more(event, line), durable=_must_last(line))
        if isinstance(event, ev.CallFinished) and not lines:
            self._write(
                {"type": "unread", "id": event.id, "name": event.name, "text": event.content}
            )

    def _record_task(self, event: ev.TaskEvent) -> None:
        """In a line of a kind of its own: what a sub-agent says is not the conversation."""
        if not isinstance(event.event, ev.PrefillProgressed):
            for line in self._lines.feed(event):
                self._write({"type": "task", "task": event.task, "line": line})

    def turn_begins(self, branch: int, at: int, changes: int) -> None:
        """Where the next prompt stands; see `sessions.saved`."""
        self._turn = {"branch": branch, "at": at, "changes": changes}

    def branched(self, branch: int) -> None:
        """What follows is in this branch of the token log."""
        self._write({"type": "branch", "branch": branch})

    def tools(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        """The model knows these tools from here on."""
        self._write(tools_line(schemas))

    def reminder(self, text: str) -> None:
        """Log what the model is told before the next prompt."""
        self._write({"type": "reminder", "text": text}, durable=True)

    def failed(self, message: str) -> None:
        """Log that an error ended the run."""
        self._write({"type": "error", "text": message})

    def undone(self, turn: TurnUndone) -> None:
        """Log what an undo did to each file."""
        files = [asdict(file) for file in turn.files]
        self._write({"type": "undo", "files": files, "text": turn.text()})

    def rewound(self, branch: int, turn: int, rewound: Rewound) -> None:
        """Log that the conversation went back."""
        text = rewound.undone.text() if rewound.undone else ""
        line = {"type": "rewind", "turn": turn, "prompt": rewound.prompt, "text": text}
        self._write(line, durable=True)
        self.branched(branch)

    def new_failures(self) -> list[str]:
        """One line for each record that broke off since the last call."""
        failures = [r.failure for r in self._watched if r.failure and r.failure not in self._told]
        self._told.update(failures)
        return failures

    def _write(self, line: Mapping[str, Any], *, durable: bool = False) -> None:
        if self._log is None:
            return
        header, self._header = self._header, ()
        for first in (*header, line):
            self._log.event({"time": round(self._clock(), 3), **first}, durable=durable)


def tools_line(schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The tools a model knows, as a line of the log."""
    return {"type": "tools", "schemas": list(schemas.values())}


def _more(event: ev.Event, line: Mapping[str, Any]) -> dict[str, Any]:
    """What the log says of an event beyond the stream."""
    match event:
        case ev.StepFinished(context_tokens=at) if line.get("type") == "assistant":
            return {"at": at}
        case ev.CallFinished(diff=diff, ran=ran):
            return {"ran": ran} | ({"diff": diff} if diff else {})
        case ev.TurnEnded(prefill_rate=rate) if rate:
            return {"prefill_rate": rate}
    return {}


def _must_last(line: Mapping[str, Any]) -> bool:
    """Whether the agent goes on only once a line is on the disk itself."""
    if line["type"] == "assistant":
        return any(block["type"] == "tool_use" for block in line["message"]["content"])
    return line["type"] in ("user", "result")
