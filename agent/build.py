"""Puts a session together: engine, tools, prompt, permissions and records make an `Agent`.

In: `RunOptions`, and whoever answers approvals. Out: an `Agent` both front ends use. Opens the
model, so it can take long; nothing heavy is imported before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ds4_agent.agent import permissions
from ds4_agent.agent.approval import Approvals, ApprovalsLog, Approver
from ds4_agent.agent.config import Settings
from ds4_agent.agent.options import Asks, RunOptions
from ds4_agent.agent.session_prompt import (
    session_prefix,
    session_profile,
    session_thinking,
    thinking_notices,
)

if TYPE_CHECKING:
    from ds4_agent.agent.calls import CallRunner
    from ds4_agent.agent.identity import Identity, Retooled
    from ds4_agent.agent.limits import Limits
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.prompt.facts import Facts
    from ds4_agent.agent.prompt.memory import Memory
    from ds4_agent.agent.reload import Changed
    from ds4_agent.agent.resume import Resumed
    from ds4_agent.agent.steps import Model
    from ds4_agent.agent.toolbox import Toolbox
    from ds4_agent.agent.transcript import Trace, Transcript
    from ds4_agent.engine.api import Context, Engine, LoadProgress, Sampling, StoreOptions
    from ds4_agent.engine.dsml.segments import Segment
    from ds4_agent.engine.speculative.pace import Mode
    from ds4_agent.sessions.log import SessionLog
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.types import Tool
    from ds4_agent.tools.workspace import Workspace

__all__ = [
    "Asks",
    "RunOptions",
    "build_agent",
    "gathered_facts",
    "gathered_memory",
    "opened_engine",
    "session_model",
]

# Output tokens of one step, as DeepSeek's own request layer has them; the context caps them.
STEP_LIMITS = {"off": 8_192, "low": 65_536, "high": 65_536, "max": 131_072}


def build_agent(
    options: RunOptions,
    *,
    approver: Approver | None = None,
    on_load: Callable[[LoadProgress], None] | None = None,
    engine: Engine | Callable[[], Engine] | None = None,
    warm: Context | None = None,
) -> Agent:
    """An agent ready to run; `close` it. An `--approver` command goes before `approver`.

    `on_load` is called from the engine's thread while weights load. A given `engine`
    (or what is called for it) is used instead of opening the model, and stays open; `warm` is a
    live context of it that may hold the ids of the session that goes on. Raises UsageError and
    EngineError with everything closed again.
    """
    from ds4_agent.agent.toolbox import gather_toolbox
    from ds4_agent.tools.process import Processes

    with ExitStack() as stack:
        records = _Records(options)
        stack.callback(records.close)
        processes = stack.enter_context(Processes())
        toolbox = gather_toolbox(
            options.directory, options.places, processes, trusts=options.trusts
        )
        approvals = permissions.approvals(options, toolbox.with_task.tools, records.approvals)
        if engine is None:
            engine = opened_engine(options, on_load)
            stack.callback(engine.close)
        elif callable(engine):
            engine = engine()
        cancel = threading.Event()
        permissions.choose_approver(
            approvals, options, processes, cancel, records.session_id, approver
        )
        parts = _Parts(options, engine, toolbox, approvals, processes, cancel, records, warm)
        return _assemble(parts, stack)


def opened_engine(options: RunOptions, on_load: Callable[[LoadProgress], None] | None) -> Engine:
    """The model of these options; close it. Raises EngineError."""
    from ds4_agent.agent.model_names import model_spec
    from ds4_agent.engine.open import open_engine

    settings = options.settings
    return open_engine(
        model_spec(settings.model, options.places),
        context_length=settings.ctx,
        on_load=on_load,
        store=_store(options),
        speculate=cast("Mode", settings.speculate or "auto"),
        verdicts=options.places.kernels,
    )


def _store(options: RunOptions) -> StoreOptions | None:
    from ds4_agent.engine.api import StoreOptions

    if not options.keeps_states:
        return None
    return StoreOptions(options.places.kv, options.settings.cache_budget)


@dataclass(frozen=True)
class _Parts:
    options: RunOptions
    engine: Engine
    toolbox: Toolbox
    approvals: Approvals
    processes: Processes
    cancel: threading.Event
    records: _Records
    warm: Context | None

    @property
    def tools(self) -> tuple[Tool, ...]:
        return self.whole_toolbox.tools

    @property
    def whole_toolbox(self) -> Toolbox:
        """With `task`, where the profile has it."""
        from ds4_agent.agent.prompt.profile import has_task

        return self.toolbox.with_task if has_task(self.profile) else self.toolbox

    @property
    def profile(self) -> str:
        own = self.options
        return session_profile(own.settings, self.engine, keeps_states=own.keeps_states)


class _Records:
    """The files a session writes, opened before the model is: a bad path fails at once."""

    def __init__(self, options: RunOptions) -> None:
        from ds4_agent.agent.resume import read_session, taken_up
        from ds4_agent.agent.transcript import Trace
        from ds4_agent.sessions.log import SessionLog, new_session_id
        from ds4_agent.sessions.snapshots import Snapshots

        choice, keeps = options.resumes, options.keeps_log
        directory = options.places.sessions / new_session_id(datetime.now().astimezone())
        self.log: SessionLog | None = None
        if choice is None:
            self.saved = None
            self.log = SessionLog(directory) if keeps else None
        elif keeps:
            self.log, self.saved = taken_up(choice)
            directory = self.log.directory
        else:  # looked into, and left as it is
            self.saved = read_session(choice.directory)
        self.session_id = directory.name
        roots = [Path(os.path.realpath(root)) for root in (options.directory, *options.add_dirs)]
        self.snapshots = Snapshots(directory, roots) if keeps else None
        self.approvals = ApprovalsLog(options.approvals_log) if options.approvals_log else None
        self.trace: Trace | None = Trace(options.trace_tokens) if options.trace_tokens else None

    def close(self) -> None:
        for record in (self.log, self.snapshots, self.approvals, self.trace):
            if record is not None:
                record.close()


def _assemble(parts: _Parts, stack: ExitStack) -> Agent:
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.prompt.profile import with_front
    from ds4_agent.agent.record import Recorder, StoreRecord
    from ds4_agent.agent.undo import Undo
    from ds4_agent.tools.workspace import Workspace

    options, engine, records = parts.options, parts.engine, parts.records
    settings = options.settings
    snapshots = records.snapshots
    workspace = Workspace(options.directory, options.add_dirs, watch=snapshots)
    kept = (snapshots, records.approvals, records.trace, StoreRecord(engine))
    others = [record for record in kept if record is not None]
    identity = _identity(parts, parts.tools)
    memory = gathered_memory(options, parts.profile)
    model = session_model(options, engine, parts.tools)
    facts = gathered_facts(options)
    prefix = with_front(
        session_prefix(parts.profile, settings, engine, parts.tools, facts, memory), options.front
    )
    resumed, changed = _resumed(parts, prefix, thinking=model.thinking)
    return Agent(
        identity,
        model,
        _transcript(parts, resumed, prefix),
        _runner(parts, workspace, prefix, stack),
        Recorder(records.log, others, time.time, header=_header(parts, model, resumed)),
        prefix=prefix,
        limits=_limits(settings),
        new_context=engine.new_context,
        undo=Undo(snapshots, workspace) if snapshots else None,
        notices=[
            *([engine.notice] if engine.notice else []),
            *([resumed.notice] if resumed else []),
            *thinking_notices(settings, engine),
            *permissions.mode_notices(options, parts.approvals.mode),
            *permissions.idle_rules(options, parts.tools),
            *memory.notices,
            *parts.toolbox.notices,
            *(changed.notices if changed else ()),
        ],
        resumed=resumed,
        announcement=_announcement(parts, changed),
        retool=_retool(parts, workspace),
        on_close=stack.pop_all().close,  # last: until here a failure closes everything
    )


def _resumed(
    parts: _Parts, prefix: Sequence[Segment], *, thinking: bool
) -> tuple[Resumed | None, Changed | None]:
    """The session that goes on, and what changed of the tools its model knows."""
    from ds4_agent.agent.prompt.profile import has_memory
    from ds4_agent.agent.reload import changed_tools
    from ds4_agent.agent.resume import resume

    saved = parts.records.saved
    if saved is None:
        return None, None
    facts = gathered_facts(parts.options)
    resumed = resume(
        saved,
        parts.engine,
        prefix=prefix,
        thinking=thinking,
        directory=facts.directory,
        today=facts.date if has_memory(parts.profile) else "",
        warm=parts.warm,
    )
    return resumed, None if resumed.is_text else changed_tools(saved.schemas, parts.tools)


def _transcript(parts: _Parts, resumed: Resumed | None, prefix: Sequence[Segment]) -> Transcript:
    from ds4_agent.agent.prompt.profile import stable_part
    from ds4_agent.agent.transcript import Place, Transcript

    engine, records = parts.engine, parts.records
    return Transcript(
        resumed.place if resumed else Place(engine.new_context()),
        engine.tokenizer,
        engine.context_length,
        records.log,
        records.trace,
        stable=engine.tokenizer.encode(stable_part(prefix)),
        opening=engine.tokenizer.encode(prefix),
        fingerprint=engine.fingerprint,
        speculation=lambda: engine.speculation,
        next_branch=resumed.next_branch if resumed else 1,
        first=resumed.first if resumed else None,
    )


def _announcement(parts: _Parts, changed: Changed | None) -> str:
    from ds4_agent.agent.reload import announcement

    return announcement(changed, with_schemas=parts.profile != "nano") if changed else ""


def _runner(
    parts: _Parts, workspace: Workspace, prefix: Sequence[Segment], stack: ExitStack
) -> CallRunner:
    from ds4_agent.agent.calls import CallRunner
    from ds4_agent.agent.subagents import Shared, SubAgents
    from ds4_agent.engine.dsml.grammar import Grammar
    from ds4_agent.tools.types import ToolContext

    def context(
        place: Workspace, cancel: threading.Event, on_output: Callable[[str], None]
    ) -> ToolContext:
        return ToolContext(place, parts.processes, cancel, on_output)

    def jobs_run() -> bool:
        return any(job.ended is None for job in parts.processes.jobs.values())

    snapshots = parts.records.snapshots
    on_command = snapshots.command_ran if snapshots else lambda: None
    subs = SubAgents(
        Shared(
            context,
            workspace,
            snapshots,
            parts.approvals,
            parts.cancel,
            jobs_run,
            on_command,
            prefix,
            parts.engine.new_context,
            partial(Grammar, parts.engine.tokenizer),
            _limits(parts.options.settings),
            parts.engine.batching,
        )
    )
    stack.callback(subs.close)
    return CallRunner(
        parts.tools,
        partial(context, workspace),
        parts.approvals,
        parts.cancel,
        jobs_run,
        on_command=on_command,
        workspace=workspace,
        tasks=subs,
    )


def _limits(settings: Settings) -> Limits:
    from ds4_agent.agent.limits import Limits

    return Limits(settings.max_turns, settings.max_tokens, settings.time_limit)


def gathered_facts(options: RunOptions) -> Facts:
    """The facts of the working directory, today."""
    from ds4_agent.agent.prompt.facts import gather_facts

    return gather_facts(options.directory, today=datetime.now().astimezone().date())


def gathered_memory(options: RunOptions, profile: str) -> Memory:
    """The notes of the project and of the user; none for a profile that leaves them out."""
    from ds4_agent.agent.prompt.memory import Memory, gather_memory
    from ds4_agent.agent.prompt.profile import has_memory

    if not has_memory(profile):
        return Memory()
    return gather_memory(options.directory, options.places.memory_file)


def session_model(options: RunOptions, engine: Engine, tools: Sequence[Tool]) -> Model:
    """How a session samples with these tools."""
    from ds4_agent.agent.steps import Model
    from ds4_agent.engine.dsml.grammar import Grammar

    thinking = session_thinking(options.settings, engine)
    schemas: dict[str, dict[str, Any]] = {tool.name: tool.schema() for tool in tools}
    grammar = Grammar(engine.tokenizer, schemas) if options.uses_grammar else None
    return Model(
        thinking=thinking != "off",
        sampling=_sampling(options.settings, engine.default_sampling),
        schemas=schemas,
        grammar=grammar,
        step_limit=STEP_LIMITS[thinking],
    )


def _sampling(settings: Settings, default: Sampling) -> Sampling:
    from ds4_agent.engine.api import Sampling

    return Sampling(
        temperature=default.temperature if settings.temp is None else settings.temp,
        top_p=default.top_p if settings.top_p is None else settings.top_p,
        min_p=default.min_p if settings.min_p is None else settings.min_p,
        seed=default.seed if settings.seed is None else settings.seed,
    )


def _retool(parts: _Parts, workspace: Workspace) -> Callable[[], Retooled | None]:
    """How the agent learns between turns that the user's plugins changed."""
    from ds4_agent.agent.identity import Retooled
    from ds4_agent.agent.reload import PluginWatch

    options = parts.options
    own = options.places.tools.resolve()
    if any(own.is_relative_to(root) for root in workspace.roots):
        return lambda: None  # the model may write there: see `reload`
    watch = PluginWatch(options.places.tools, parts.whole_toolbox, parts.processes)

    def retool() -> Retooled | None:
        changed = watch.look()
        if changed is None:
            return None
        return Retooled(
            _identity(parts, changed.tools),
            session_model(options, parts.engine, changed.tools),
            changed.tools,
            _announcement(parts, changed),
            changed.notices,
        )

    return retool


def _identity(parts: _Parts, tools: Sequence[Tool]) -> Identity:
    from ds4_agent.agent.identity import Identity
    from ds4_agent.agent.nano_hint import nano_hint
    from ds4_agent.engine.machine import system_memory

    return Identity(
        session_id=parts.records.session_id,
        model=parts.engine.model_name,
        directory=os.fspath(parts.options.directory),
        tools=tuple(tool.name for tool in tools),
        tool_signatures=tuple(tool.signature() for tool in tools),
        hint=nano_hint(system_memory()) if parts.engine.model_name == "nano" else "",
    )


def _header(parts: _Parts, model: Model, resumed: Resumed | None) -> list[dict[str, Any]]:
    """The first lines of the event log, or those that say that the session goes on."""
    from ds4_agent import __version__
    from ds4_agent.agent.record import tools_line

    first = {
        "type": "resumed" if resumed else "session",
        "session_id": parts.records.session_id,
        "cwd": os.fspath(parts.options.directory),
        "model": parts.engine.model_name,
        "fingerprint": parts.engine.fingerprint,
        "version": __version__,
    }
    reads_of_all = resumed is None or resumed.is_text
    return [first, tools_line(model.schemas)] if reads_of_all else [first]
