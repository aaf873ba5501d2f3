"""`ds4-agent batch`: the same prompt over many files.

In: arguments. Out: the exit code; the table, diffs or JSON on stdout. However a batch ends, each
file is as it was or as its item wants it, and the ledger knows which.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.batch.bounds import Bounds
from ds4_agent.agent.batch.commit import (
    commit_message,
    commit_paths,
    dirty_paths,
    open_for_commits,
)
from ds4_agent.agent.batch.globs import normal
from ds4_agent.agent.batch.items import Item, gather_items
from ds4_agent.agent.batch.kit import Kit, check_permissions
from ds4_agent.agent.batch.ledger import Ledger, Saved
from ds4_agent.agent.batch.options import Request, read_request
from ds4_agent.agent.batch.patch import file_patch, patch_root
from ds4_agent.agent.batch.placing import Tree
from ds4_agent.agent.batch.recovery import recover
from ds4_agent.agent.batch.report import Report, make_report
from ds4_agent.agent.batch.runner import Runner, Watcher
from ds4_agent.agent.batch.task import Outcome, outcome_of
from ds4_agent.agent.batch.totals import Ending
from ds4_agent.agent.batch.tree_lock import TreeLock
from ds4_agent.agent.batch.wording import item_command, item_pattern, item_prompt
from ds4_agent.agent.batch.work import Shared
from ds4_agent.agent.build import (
    RunOptions,
    gathered_facts,
    gathered_memory,
    opened_engine,
    session_model,
)
from ds4_agent.agent.cli import options_from
from ds4_agent.agent.errors import OutputError, UsageError
from ds4_agent.agent.limits import Limits
from ds4_agent.agent.printing import warn, write_atomically, write_bytes_atomically
from ds4_agent.agent.progress import LoadLine
from ds4_agent.agent.repository import repository_top
from ds4_agent.agent.session_prompt import session_prefix, session_profile, thinking_notices
from ds4_agent.agent.signals import Signals

if TYPE_CHECKING:
    from ds4_agent.engine.api import Engine
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.workspace import Workspace

__all__ = ["run_batch"]

SOME_FAILED = 5
COMMAND_PATIENCE = 10.0  # seconds until a first Ctrl+C ends the process whatever it does


def run_batch(arguments: Sequence[str]) -> int:
    """Run the command line. Raises UsageError, OutputError and EngineError."""
    request = read_request(arguments)
    with ExitStack() as stack, Signals() as signals:
        batch = _Batch(request, stack)
        signals.interrupt = batch.runner.stop
        if batch.options.settings.allowed_tools:  # what a command did has to be looked at
            signals.patience = COMMAND_PATIENCE
        return batch.run(signals)


class _Batch:
    """A batch from its command line to its exit code."""

    def __init__(self, request: Request, stack: ExitStack) -> None:
        """Everything that can be wrong with the request is found before a model is loaded, and
        nothing is written down before there is one."""
        from ds4_agent.tools.process import Processes
        from ds4_agent.tools.workspace import Workspace

        self.request, chosen = request, request.chosen
        self.options = options_from(chosen, is_headless=True)
        self.workspace = Workspace(self.options.directory)
        items = request.saved.items if request.saved else _items(request, self.workspace)
        _check_templates(request, items)
        self.report: Report = make_report(chosen.output_format, verbose=chosen.verbose)
        processes = stack.enter_context(Processes())
        self.ledger = _ledger(request, self.options, stack)
        places = self.options.places
        root = self.workspace.root
        lock = TreeLock(places.state / "batches", repository_top(root) or root)
        stack.callback(lock.close)
        own = (places.data, places.cache, places.state, places.config)
        bounds = Bounds(self.workspace, self.ledger.folder, own)
        stack.callback(bounds.close)
        stop = threading.Event()
        self.tree = Tree(self.workspace, lock, self.ledger, stop, bounds, processes.settle)
        if request.saved:
            self.ledger.take_up()
            recover(self.tree, request.saved, request.task)
        self.repository = open_for_commits(self.workspace.root) if request.task.commit else None
        self.runner, self.saved = self._runner(items, processes, stack)
        self.outcomes = [
            outcome_of(item, self.saved.entry(item.number).record)
            for item in items
            if self.saved.entry(item.number).is_ended
        ]
        for outcome in self.outcomes:
            for file in () if request.task.applies else outcome.files:
                self.runner.shared.claim(str(file["path"]), outcome.item.number)

    def _runner(
        self, items: tuple[Item, ...], processes: Processes, stack: ExitStack
    ) -> tuple[Runner, Saved]:
        from ds4_agent.agent.prompt.profile import stable_part
        from ds4_agent.agent.toolbox import gather_toolbox

        options, task = self.options, self.request.task
        toolbox = gather_toolbox(
            options.directory, options.places, processes, trusts=options.trusts
        )
        check_permissions(options, toolbox.tools, applies=task.applies)
        dirty = self._dirty(items)
        with closing(LoadLine()) as loading:
            engine = opened_engine(options, loading)
        stack.callback(engine.close)
        keeps = options.keeps_states
        profile = session_profile(options.settings, engine, keeps_states=keeps)
        memory = gathered_memory(options, profile)
        thinking = thinking_notices(options.settings, engine)
        for notice in (*thinking, *memory.notices, *toolbox.notices):
            warn(notice)
        facts = gathered_facts(options)
        prefix = session_prefix(profile, options.settings, engine, toolbox.tools, facts, memory)
        saved = self.request.saved or self._begin(items, engine)
        settings = options.settings
        kit = Kit(
            batch=saved.id,
            options=options,
            engine=engine,
            model=session_model(options, engine, toolbox.tools),
            tools=toolbox.tools,
            processes=processes,
            limits=Limits(settings.max_turns, settings.max_tokens, settings.time_limit),
        )
        shared = Shared(kit, task, self.tree, dirty, self.repository)
        runner = Runner(
            shared,
            saved,
            self._watcher(),
            jobs=self.request.chosen.jobs,
            prefix=prefix,
            stable=stable_part(prefix),
        )
        tools = [tool.name for tool in toolbox.tools]
        self.header = {
            "session_id": saved.id,
            "cwd": str(options.directory),
            "model": engine.model_name,
            "tools": tools,
        }
        return runner, saved

    def _begin(self, items: tuple[Item, ...], engine: Engine) -> Saved:
        header = {
            "id": self.ledger.folder.name,
            "directory": str(self.workspace.root),
            "cwd": os.getcwd(),
            "arguments": list(self.request.arguments),
            "prompt": self.request.task.prompt,
            "model": engine.model_name,
            "time": round(time.time(), 3),
        }
        self.ledger.begin(header, items)
        return Saved(self.ledger.folder, header, items, {})

    def _dirty(self, items: tuple[Item, ...]) -> frozenset[str]:
        """The paths with changes of the user's own. Raises UsageError where an item is one."""
        from ds4_agent.tools.types import ToolError

        if self.repository is None:
            return frozenset()
        try:
            dirty = dirty_paths(self.repository)
        except ToolError as error:
            raise UsageError(f"--commit: {error}") from error
        if self.request.saved:
            entries = self.request.saved.entries.values()
            dirty -= {str(f["path"]) for e in entries for f in e.record.get("files", ())}
        own = [item.path for item in items if item.path in dirty]
        if own:
            more = f" and {len(own) - 1} more" if len(own) > 1 else ""
            raise UsageError(
                f"--commit: {own[0]}{more} has changes that are not committed; commit or stash them"
            )
        return dirty

    def _watcher(self) -> Watcher:
        report = self.report

        def ended(outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            report.ended(outcome)

        return Watcher(report.reading, report.began, report.event, ended, report.tick)

    def run(self, signals: Signals) -> int:
        """To the end, or to where it stops; the exit code."""
        from ds4_agent.engine.errors import EngineError

        began = time.monotonic()
        ledger, count = self.ledger, len(self.saved.items)
        file = ledger.folder / "ledger.jsonl"
        ending = Ending(self.saved.id, file, count, (), self.runner.prefilled, 0.0)
        self.report.start(self.header, len(self.outcomes), count)
        code = 0
        diffs = None
        try:
            if signals.signum:
                self.runner.stop()
            self.runner.run()
            if not signals.signum:
                ending, diffs = self._finish(ending)
                code = SOME_FAILED if any(o.state == "failed" for o in self.outcomes) else 0
        except (EngineError, OutputError) as error:
            self._end(replace(ending, error=str(error)), began, None)
            warn(f"not finished; `ds4-agent batch --resume {self.saved.id}` goes on")
            raise
        is_stopped = bool(signals.signum)
        self._end(replace(ending, is_stopped=is_stopped), began, diffs)
        if is_stopped:
            warn(f"stopped; `ds4-agent batch --resume {self.saved.id}` goes on")
            return 128 + signals.signum
        ledger.finish(code)
        return code

    def _end(self, ending: Ending, began: float, diffs: bytes | None) -> None:
        seconds = time.monotonic() - began
        whole = replace(ending, outcomes=tuple(self.outcomes), seconds=seconds)
        shown = diffs if self.request.chosen.dry_run else None
        text = self.report.end(whole, shown)
        if self.request.chosen.output is not None and text:
            write_atomically(self.request.chosen.output, text)

    def _finish(self, ending: Ending) -> tuple[Ending, bytes | None]:
        """What is made of all items together: one commit, the patch."""
        task, request = self.request.task, self.request
        if task.commit == "one":
            return replace(ending, commit=self.saved.commit or self._commit_all()), None
        if task.applies:
            return ending, None
        diffs = b"".join(self._diffs())
        if request.patch is not None:
            write_bytes_atomically(request.patch, diffs)
            ending = replace(ending, patch=str(request.patch))
        return ending, diffs

    def _changed_files(self) -> list[dict[str, Any]]:
        ordered = sorted(self.outcomes, key=lambda outcome: outcome.item.number)
        changed = [outcome for outcome in ordered if outcome.state == "changed"]
        return [dict(file) for outcome in changed for file in outcome.files]

    def _diffs(self) -> list[bytes]:
        content, root = self.ledger.content, self.workspace.root
        top = patch_root(root)
        return [
            file_patch(
                os.path.relpath(root / str(file["path"]), top),
                None if file["before"] is None else content(file["before"]),
                content(file["after"]),
            ).data
            for file in self._changed_files()
        ]

    def _commit_all(self) -> str:
        from ds4_agent.tools.types import ToolError

        assert self.repository is not None
        paths = list(dict.fromkeys(str(file["path"]) for file in self._changed_files()))
        if not paths:
            return ""
        message = commit_message(self.request.task.prompt, files=len(paths), batch=self.saved.id)
        try:
            made = commit_paths(self.repository, paths, message, self.ledger.folder)
        except ToolError as error:
            raise OutputError(f"the changes are made but not committed: {error}") from error
        self.ledger.add({"type": "commit", "commit": made})
        return made


def _items(request: Request, workspace: Workspace) -> tuple[Item, ...]:
    return gather_items(request.source, workspace, warn)


def _check_templates(request: Request, items: Sequence[Item]) -> None:
    """Raise UsageError for what a template cannot be for an item, before anything is done."""
    task = request.task
    for item in items:
        item_prompt(task.prompt, item)
        item_command(task.verify, item)
        for pattern in task.scope:
            normal(item_pattern(pattern, item))


def _ledger(request: Request, options: RunOptions, stack: ExitStack) -> Ledger:
    from ds4_agent.sessions.log import new_session_id

    name = new_session_id(datetime.now().astimezone())
    folder = options.places.data / "batches" / name
    ledger = Ledger(request.saved.folder if request.saved else folder)
    stack.callback(ledger.close)
    return ledger
