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
    from ds4_agent.agent.undo import TurnUndone
    from ds4_agent.engine.api import Engine
    from ds4_agent.sessions.log import SessionLog

__all__ = ["Record", "Recorder", "StoreRecord"]


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
        header: Mapping[str, Any] | None = None,
    ) -> None:
        """`clock` gives the time of each line, in seconds since 1970; `header` is the session
        log's first line. `log` None: nothing is kept of the session."""
        self._log = log
        self._watched: list[Record] = [*others] if log is None else [log, *others]
        self._clock = clock
        self._header = header
        self._lines = Lines()
        self._told: set[str] = set()

    def record(self, event: ev.Event) -> None:
        """Log an event. Prompts, calls, results and the end of a turn are on the disk itself before
        this returns, and so before whatever follows from them."""
        if isinstance(event, ev.PrefillProgressed):
            return
        if self._header is not None:
            self._write(self._header)
            self._header = None
        if isinstance(event, ev.RunStarted):
            self._write({"type": "prompt", "text": event.prompt}, durable=True)
        for line in self._lines.feed(event):
            self._write(line, durable=_must_last(line))

    def failed(self, message: str) -> None:
        """Log that an error ended the run."""
        self._write({"type": "error", "text": message})

    def undone(self, turn: TurnUndone) -> None:
        """Log what an undo did to each file."""
        self._write({"type": "undo", "files": [asdict(file) for file in turn.files]})

    def new_failures(self) -> list[str]:
        """One line for each record that broke off since the last call."""
        failures = [r.failure for r in self._watched if r.failure and r.failure not in self._told]
        self._told.update(failures)
        return failures

    def _write(self, line: Mapping[str, Any], *, durable: bool = False) -> None:
        if self._log is not None:
            self._log.event({"time": round(self._clock(), 3), **line}, durable=durable)


def _must_last(line: Mapping[str, Any]) -> bool:
    """Whether the agent goes on only once a line is on the disk itself."""
    if line["type"] == "assistant":
        return any(block["type"] == "tool_use" for block in line["message"]["content"])
    return line["type"] in ("user", "result")
