"""Sub-agents: forks of the living conversation, each with a task and a loop of its own.

In: a call of `task` that the model has just made. Out: the events of the sub-agent, then its answer
and its diff. A fork begins right behind the step that made the call: its `task` call is answered
with the news that it is the sub-agent now, and the task is what the user says next. So nothing is
computed again and the caller's own conversation is not touched.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.calls import TASK, CallRunner
from ds4_agent.agent.display import one_line
from ds4_agent.agent.events import Event, TaskEvent, TurnEnded
from ds4_agent.agent.limits import Limits
from ds4_agent.agent.steps import Tail
from ds4_agent.engine.errors import ContextFullError, EngineError

if TYPE_CHECKING:
    from ds4_agent.agent.answers import Answers
    from ds4_agent.agent.approval import Approvals
    from ds4_agent.agent.events import CallReady
    from ds4_agent.agent.identity import Identity
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.steps import Model
    from ds4_agent.agent.transcript import Transcript
    from ds4_agent.engine.api import Context
    from ds4_agent.engine.dsml.grammar import Grammar
    from ds4_agent.engine.dsml.segments import Segment
    from ds4_agent.tools.types import TaskRequest, Tool, ToolContext, ToolResult
    from ds4_agent.tools.workspace import Watch, Workspace

__all__ = ["Live", "Shared", "SubAgents", "fork_agent", "last_event", "tools_of"]

MOST = 128  # sub-agents in one turn
STEPS = 50  # of one sub-agent
TOKENS = 32_768  # written by one sub-agent
DIFF_SHOWN, DIFF_TAIL = 16 * 1024, 2 * 1024  # bytes of a diff the caller reads

_YOU_ARE = (
    "You are now the sub-agent that this call started, and know the conversation so far. Do only "
    "the task that follows. Whoever called reads your last message and nothing else of yours, so "
    "let it hold all that was asked for."
)
_TOOLS = "Your tools are {tools}; you start no sub-agents."
_COPY = (
    "You work in a copy of the repository, in {root}: relative paths and commands are there, and "
    "{original} is not yours to look at or to change. Your changes are handed over as a diff."
)
_OTHER = "Another sub-agent does this at the same time."
_LATER = "This was not run yet; it is not yours to do."
_STOPPED = {
    "max_turns": "it used up the steps it may make",
    "max_tokens": "it used up the tokens it may write",
    "context": "its context is full",
    "interrupted": "it was interrupted",
    "time_limit": "it was interrupted",
    "repeated_call": "it made the same call again and again",
    "malformed": "its calls could not be read",
}


@dataclass(frozen=True)
class Shared:
    """What the agents of one session have in common."""

    context: Callable[[Workspace, threading.Event, Callable[[str], None]], ToolContext]
    workspace: Workspace
    watch: Watch | None
    approvals: Approvals
    cancel: threading.Event
    jobs_run: Callable[[], bool]
    on_command: Callable[[], None]
    prefix: Sequence[Segment]
    new_context: Callable[[], Context]
    grammar: Callable[[Mapping[str, Mapping[str, Any]]], Grammar | None]
    limits: Limits
    batching: Callable[[int], AbstractContextManager[None]]  # see `engine.api.Engine`


@dataclass(frozen=True)
class Live:
    """The conversation at the calls of a step: how to fork it, what it owes there, whose it is, how
    it samples, its tools, what the calls were answered so far, and the tokens all their sub-agents
    may write (None: any). `opening` is what the next prompt has to begin with."""

    fork: Callable[[], Transcript]
    tail: Tail
    identity: Identity
    model: Model
    tools: Sequence[Tool]
    answers: Answers
    tokens: int | None
    opening: str = ""


class SubAgents:
    """Starts the sub-agents of one session."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._live: Live | None = None
        self._started = 0
        self._patches: Path | None = None
        self._lock = threading.Lock()

    def new_turn(self) -> None:
        self._started = 0

    def begin_step(self, live: Live) -> None:
        """The calls that are answered next."""
        self._live = live

    def close(self) -> None:
        """The patches of worktrees go."""
        if self._patches is not None:
            shutil.rmtree(self._patches, ignore_errors=True)

    @contextmanager
    def ready(
        self, call_id: str, emit: Callable[[TaskEvent], None]
    ) -> Iterator[Callable[[TaskRequest], ToolResult]]:
        """What starts the sub-agent of that call. An error of the engine, which no tool has to
        answer for, is raised at the end of the block."""
        failures: list[EngineError] = []

        def start(request: TaskRequest) -> ToolResult:
            try:
                return self._run(call_id, request, emit)
            except EngineError as error:
                failures.append(error)
                raise

        yield start
        if failures:
            raise failures[0]

    def _run(
        self, call_id: str, request: TaskRequest, emit: Callable[[TaskEvent], None]
    ) -> ToolResult:
        from ds4_agent.tools.worktree import worktree

        live = self._live
        assert live is not None
        names = _tools_of(live, request)
        self._count()
        if not request.isolated:
            return self._in_place(live, call_id, request, names, emit)
        workspace = self.shared.workspace
        with worktree(workspace.root, self.shared.cancel) as copy:
            place = type(workspace)(copy.root)
            where = _COPY.format(root=copy.root, original=workspace.root)
            ended = self._follow(live, call_id, request, names, place, where, emit)
            if ended.reason in ("interrupted", "time_limit"):
                return _report(ended, "", "")
            patch = copy.patch()
        if not patch.changes:
            return _report(ended, "", "")
        kept = self._keep(call_id, patch.data)
        return _report(ended, patch.text, f"not applied (git apply {kept} does it):")

    def _in_place(
        self,
        live: Live,
        call_id: str,
        request: TaskRequest,
        names: Sequence[str],
        emit: Callable[[TaskEvent], None],
    ) -> ToolResult:
        from ds4_agent.agent.changes import Changes

        changes = Changes(self.shared.watch)
        place = self.shared.workspace.fork(changes)
        ended = self._follow(live, call_id, request, names, place, "", emit)
        return _report(ended, changes.diff(place), "made in the workspace:")

    def _follow(
        self,
        live: Live,
        call_id: str,
        request: TaskRequest,
        names: Sequence[str],
        workspace: Workspace,
        where: str,
        emit: Callable[[TaskEvent], None],
    ) -> TurnEnded:
        from ds4_agent.tools.types import ToolError

        told = " ".join(filter(None, (_YOU_ARE, _TOOLS.format(tools=", ".join(names)), where)))
        agent = fork_agent(
            self.shared,
            live,
            call_id,
            names,
            workspace,
            Tail(live.tail.closing, _results(live.answers, call_id, told)),
            asks_as=f"sub-agent {call_id} ({one_line(request.prompt, 60)})",
        )
        try:
            return last_event(
                agent.run(request.prompt), lambda event: emit(TaskEvent(call_id, event))
            )
        except ContextFullError as error:
            raise ToolError(f"a sub-agent does not fit into the context: {error}") from error

    def _count(self) -> None:
        from ds4_agent.tools.types import ToolError

        with self._lock:
            if self._started >= MOST:
                raise ToolError(f"{MOST} sub-agents were started in this turn, which is the most")
            self._started += 1

    def _keep(self, call_id: str, patch: bytes) -> Path:
        """A patch in a file that lasts as long as the session."""
        with self._lock:
            if self._patches is None:
                self._patches = Path(tempfile.mkdtemp(prefix="ds4-patches-"))
        path = self._patches / f"{call_id}.patch"
        path.write_bytes(patch)
        return path


def fork_agent(
    shared: Shared,
    live: Live,
    task: str,
    names: Sequence[str],
    workspace: Workspace,
    tail: Tail,
    *,
    asks_as: str,
) -> Agent:
    """An agent that goes on alone from the conversation, with these tools, in `workspace`; `task`
    names it in its events, `asks_as` where somebody is asked. `tail` is what it owes first."""
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.record import Recorder

    tools = tuple(tool for tool in live.tools if tool.name in names)
    schemas = {tool.name: live.model.schemas[tool.name] for tool in tools}
    grammar = shared.grammar(schemas) if live.model.grammar is not None else None
    runner = CallRunner(
        tools,
        lambda cancel, on_output: shared.context(workspace, cancel, on_output),
        shared.approvals,
        shared.cancel,
        shared.jobs_run,
        on_command=shared.on_command,
        workspace=workspace,
        task=(task, asks_as),
    )
    return Agent(
        replace(
            live.identity,
            directory=os.fspath(workspace.root),
            tools=tuple(names),
            tool_signatures=tuple(tool.signature() for tool in tools),
            task=task,
        ),
        replace(live.model, schemas=schemas, grammar=grammar),
        live.fork(),
        runner,
        Recorder(None, (), time.time),
        prefix=shared.prefix,
        limits=_limits(shared.limits, live),
        new_context=shared.new_context,
        tail=tail,
    )


def _tools_of(live: Live, request: TaskRequest) -> list[str]:
    """The names of a sub-agent's tools. Raises ToolError."""
    from ds4_agent.tools.types import ToolError

    known = tools_of(live.tools)
    if request.tools is None:
        return known
    if TASK in request.tools:
        raise ToolError("a sub-agent starts no sub-agents; leave task out of tools")
    for name in request.tools:
        if name not in known:
            raise ToolError(f"there is no tool {name}; the tools are {', '.join(known)}")
    return [name for name in known if name in request.tools]


def tools_of(tools: Sequence[Tool]) -> list[str]:
    """The names of those that a sub-agent may have."""
    return [tool.name for tool in tools if tool.name != TASK]


def _limits(session: Limits, live: Live) -> Limits:
    """Of one sub-agent: what is left is shared out to all of the step."""
    of_step = max(1, sum(call.name == TASK for call in live.answers.calls))
    tokens = TOKENS if live.tokens is None else min(TOKENS, max(1, live.tokens // of_step))
    return Limits(min(STEPS, session.max_turns or STEPS), tokens)


def _results(answers: Answers, call_id: str, told: str) -> tuple[str, ...]:
    """What the sub-agent of one call reads as the answers to the whole step."""

    names = [call.name for call in answers.calls]
    own = [call.id for call in answers.calls].index(call_id)
    first, last = own, own  # of those that run together: none of them knows what another answers
    while first > 0 and names[first - 1] == TASK:
        first -= 1
    while last + 1 < len(names) and names[last + 1] == TASK:
        last += 1

    def result(at: int, call: CallReady) -> str:
        if at == own:
            return told
        if first <= at <= last:
            return _OTHER
        given = answers.given(call)
        return _LATER if given is None else given

    return tuple(result(at, call) for at, call in enumerate(answers.calls))


def last_event(events: Iterator[Event], emit: Callable[[Event], None]) -> TurnEnded:
    """The end of a run, each of whose events is emitted."""
    ended: TurnEnded | None = None
    for event in events:
        emit(event)
        if isinstance(event, TurnEnded):
            ended = event
    assert ended is not None  # a run ends with it, or raises
    return ended


def _report(ended: TurnEnded, diff: str, where: str) -> ToolResult:
    """What the caller reads."""
    from ds4_agent.tools.registry import bounded
    from ds4_agent.tools.types import ToolResult

    parts = []
    if ended.reason != "end":
        parts.append(f"Error: the sub-agent did not finish: {_STOPPED[ended.reason]}")
    parts.append(ended.text.strip() or "The sub-agent gave no answer.")
    if diff:
        parts.append(f"Its changes, {where}\n{bounded(diff, DIFF_SHOWN, DIFF_TAIL)}")
    return ToolResult("\n\n".join(parts), is_error=ended.reason != "end", diff=diff)
