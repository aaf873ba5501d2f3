"""One tool call from readiness to its answer: seen before? → allowed? → run → answer.

In: a whole, well-formed call. Out: events, and the `CallFinished` whose content the model reads.
A refusal, an unknown tool, bad arguments and a tool's own fault are all the same kind of answer:
an error the model can act on. Nothing here raises for what a call says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.approval import Approvals
from ds4_agent.agent.events import (
    ApprovalAsked,
    ApprovalDecided,
    ApprovalRequest,
    CallFinished,
    CallReady,
    Notice,
    TaskEvent,
    ToolOutput,
)
from ds4_agent.agent.repeats import Memory
from ds4_agent.agent.threads import streamed

if TYPE_CHECKING:
    from ds4_agent.agent.subagents import Live, Shared, SubAgents
    from ds4_agent.tools.types import Effect, Tool, ToolContext, ToolResult
    from ds4_agent.tools.workspace import Workspace

__all__ = ["TASK", "Answer", "CallRunner", "interrupted"]

CallEvent = ApprovalAsked | ApprovalDecided | ToolOutput | Notice | TaskEvent
TASK = "task"


@dataclass(frozen=True)
class Answer:
    """How a call ended. `circle` is a sentence when the model goes round in circles and the turn
    should stop, else ""."""

    finished: CallFinished
    circle: str = ""


class CallRunner:
    """Answers the calls of one session; `new_turn` forgets what was repeated."""

    def __init__(
        self,
        tools: Sequence[Tool],
        context: Callable[[threading.Event, Callable[[str], None]], ToolContext],
        approvals: Approvals,
        cancel: threading.Event,
        jobs_run: Callable[[], bool] = lambda: False,
        on_command: Callable[[], None] = lambda: None,
        workspace: Workspace | None = None,
        tasks: SubAgents | None = None,
        task: tuple[str, str] = ("", ""),
    ) -> None:
        """`context(cancel, on_output)` makes what a tool runs in; `jobs_run()` says whether a
        background job may be changing things meanwhile; `on_command()` is told before a call runs
        that may change more than files; what leads out of `workspace` is asked about; `tasks` None:
        no sub-agent may be started; `task` is the call a sub-agent works for, and its name for
        whoever is asked."""
        self.tasks = tasks
        self._task, self._asks_as = task
        self._workspace = workspace
        self._on_command = on_command
        self._jobs_run = jobs_run
        self._tools = {tool.name: tool for tool in tools}
        self._context = context
        self.approvals = approvals
        self.cancel = cancel
        self._memory = Memory()

    def forget(self) -> None:
        """The model no longer has the answers to its calls: asking again is no repetition."""
        self._memory = Memory()

    def new_turn(self) -> None:
        self.forget()
        if self.tasks is not None:
            self.tasks.new_turn()

    def begin_step(self, live: Live) -> None:
        """The calls of a step are answered next."""
        if self.tasks is not None:
            self.tasks.begin_step(live)

    @property
    def shared(self) -> Shared:
        """What forks of this session are made with."""
        assert self.tasks is not None  # only a sub-agent has none
        return self.tasks.shared

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(self._tools.values())

    def use_tools(self, tools: Sequence[Tool]) -> None:
        """These and no others from the next call on."""
        self._tools = {tool.name: tool for tool in tools}

    def answer(self, call: CallReady) -> Generator[CallEvent, None, Answer]:
        """Answer a call that is ready. Interrupting ends a running tool; its answer says so."""
        seen = self._memory.look_up(call.name, call.arguments, changes_alone=self._jobs_run())
        finished: CallFinished | None = None
        if seen is None or self._only_reads(call):
            # To look again harms nothing, and somebody else may have changed what is looked at.
            finished, effect = yield from self._outcome(call)
            if seen is None or finished.content != seen.content:
                return self._new_answer(call, finished, effect)
        if seen.unchanged > 2:
            return Answer(_not_run(call, _STOPPED), _circle(call.name))
        looked = " and nothing has changed" if finished else ""
        yield Notice(f"{call.name} repeated an answered call{looked}; answered from memory")
        text = f"{_LOOKED if finished else _SAME}\n{seen.content}"
        ran = finished is not None
        return Answer(CallFinished(call.id, call.name, text, seen.is_error, ran=ran))

    def _only_reads(self, call: CallReady) -> bool:
        tool = self._tools.get(call.name)
        if tool is None or _wrong_arguments(tool, call.arguments) or self._outside(call):
            return False  # outside the workspace each look is asked about
        return tool.effect_of(call.arguments) == "read"

    def _new_answer(self, call: CallReady, finished: CallFinished, effect: Effect) -> Answer:
        is_circle = self._memory.store(
            call.name,
            call.arguments,
            finished.content,
            finished.is_error,
            # A sub-agent is asked about call by call, but the whole of it may change anything.
            changed=finished.ran and (effect != "read" or call.name == TASK),
            changes_alone=self._jobs_run(),
        )
        return Answer(finished, _circle(call.name) if is_circle else "")

    def _outcome(self, call: CallReady) -> Generator[CallEvent, None, tuple[CallFinished, Effect]]:
        """Check, ask, run: the answer, and what a run of the call can do."""
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(self._tools)
            text = f"Error: there is no tool {call.name}; the tools are {known}"
            return _not_run(call, text), "read"
        wrong = _wrong_arguments(tool, call.arguments)
        if wrong:  # nobody is asked about a call that cannot run
            return _not_run(call, f"Error: {wrong}"), "read"
        effect = tool.effect_of(call.arguments)
        outside = self._outside(call)
        reason = f"{_LEAVES[effect]}: {outside}" if outside else self._reason(call, effect)
        if self._asks_as:
            reason = f"{self._asks_as} {reason}"
        request = ApprovalRequest(
            call.id,
            tool.name,
            effect,
            call.arguments,
            reason,
            outside,
            self._real(call),
            task=self._task,
        )
        decided = yield from self.approvals.decide(request)
        if decided.decision.behaviour == "deny":
            return _not_run(call, _refusal(decided)), effect
        if self.cancel.is_set():
            return _not_run(call, INTERRUPTED), effect
        if outside and self._workspace is not None:
            self._workspace.admit(Path(outside))
        if effect == "execute":
            self._on_command()
        return (yield from self._run(call)), effect

    def _outside(self, call: CallReady) -> str:
        """Where a file tool's path leads, if that is outside the workspace; else ""."""
        if self._workspace is None or call.name not in _FILE_TOOLS or "path" not in call.arguments:
            return ""
        return os.fspath(self._workspace.outside(call.arguments["path"]) or "")

    def _reason(self, call: CallReady, effect: Effect) -> str:
        """Why it is asked about. Of a command also where it runs, and what it names elsewhere."""
        if call.name != "bash" or self._workspace is None or not self.approvals.may_ask:
            return _REASONS[effect]
        from ds4_agent.agent.named_paths import outside_paths

        reason = f"{_REASONS[effect]} in {self._workspace.root}"
        named = outside_paths(call.arguments["command"], self._workspace.outside)
        return f"{reason}; it names {', '.join(named)} outside the workspace" if named else reason

    def _real(self, call: CallReady) -> str:
        """Where a file tool's path leads, else ""."""
        if self._workspace is None or call.name not in _FILE_TOOLS or "path" not in call.arguments:
            return ""
        return os.fspath(self._workspace.real(call.arguments["path"]) or "")

    def _run(self, call: CallReady) -> Generator[ToolOutput | TaskEvent, None, CallFinished]:
        from ds4_agent.tools.registry import execute

        def work(emit: Callable[[ToolOutput | TaskEvent], None]) -> ToolResult:
            context = self._context(self.cancel, lambda text: emit(ToolOutput(call.id, text)))
            if self.tasks is None or call.name != TASK:
                return execute(self.tools, call.name, call.arguments, context)
            with self.tasks.ready(call.id, emit) as context.start_task:
                return execute(self.tools, call.name, call.arguments, context)

        result = yield from streamed(work, self.cancel, f"ds4-{call.name}")
        return CallFinished(call.id, call.name, result.content, result.is_error, result.diff)


INTERRUPTED = "Error: the user interrupted before this ran"
INTERRUPTED_MIDWAY = "Error: the user interrupted while this ran; it may be half done"
_SAME = "This same call was answered before and nothing has changed since; it was not run again."
_LOOKED = "This same call was answered before; it was looked at again and the answer is the same."
_STOPPED = "Error: the same call with the same answer for the third time; the turn ends here"
_FILE_TOOLS = ("read", "write", "edit", "list", "search")
_LEAVES: Mapping[str, str] = {
    "read": "reads outside the workspace",
    "edit": "changes a file outside the workspace",
    "execute": "changes what may run, outside the workspace",
}
_REASONS: Mapping[str, str] = {
    "read": "reads",
    "edit": "changes files",
    "execute": "runs a command",
}


def _circle(name: str) -> str:
    """What the user is told, and asked, when the model goes round in circles."""
    return f"stopped: {name} gives the same answer again and again; what should be done instead?"


def _wrong_arguments(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """What is wrong with a call's arguments, "" for nothing."""
    from ds4_agent.tools.schema import validate
    from ds4_agent.tools.types import ToolError

    try:
        validate(tool.name, tool.signature(), tool.parameters, arguments)
    except ToolError as error:
        return str(error)
    return ""


def _refusal(decided: ApprovalDecided) -> str:
    reason = decided.decision.reason
    if decided.source in ("rule", "mode", "headless"):
        return f"Error: this was not allowed: {reason}"
    return "Error: the user refused this call" + (f": {reason}" if reason else "")


def _not_run(call: CallReady, text: str) -> CallFinished:
    return CallFinished(call.id, call.name, text, is_error=True, ran=False)


def interrupted(call: CallReady, *, has_begun: bool) -> CallFinished:
    """The answer to a call nobody got to, or nobody waited for."""
    text = INTERRUPTED_MIDWAY if has_begun else INTERRUPTED
    return CallFinished(call.id, call.name, text, is_error=True, ran=has_begun)
