"""How an item's agent is made: the session's own parts, over a fork, a stage and few permissions.

In: what the whole batch shares. Out: an `Agent` that may change the item's own file and `--scope`,
in its stage; that runs commands only where a rule allows them, which then see these changes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.approval import Approvals, Mode
from ds4_agent.agent.batch.globs import fits
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.repository import repository_top
from ds4_agent.agent.rules import Rule, parse_rules

if TYPE_CHECKING:
    from ds4_agent.agent.batch.head_start import HeadStart
    from ds4_agent.agent.batch.items import Item
    from ds4_agent.agent.batch.placing import Tree
    from ds4_agent.agent.batch.stage import ItemStage
    from ds4_agent.agent.batch.trunk import Trunk
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.agent.limits import Limits
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.steps import Model
    from ds4_agent.engine.api import Engine
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.types import Tool, ToolOutput

__all__ = ["Kit", "check_permissions", "item_agent", "refusal", "second_agent"]

# The tools that work on the item's stage. Every other one looks at the files themselves.
STAGED = ("read", "write", "edit")
EDITING = (Rule("write", None, "write"), Rule("edit", None, "edit"))


@dataclass(frozen=True)
class Kit:
    """What all items' agents are made of. `limits` are an item's."""

    batch: str
    options: RunOptions
    engine: Engine
    model: Model
    tools: tuple[Tool, ...]
    processes: Processes
    limits: Limits


def check_permissions(options: RunOptions, tools: tuple[Tool, ...], *, applies: bool) -> None:
    """Raise UsageError where a batch with these permissions could do nothing, or could not be taken
    back without anyone having said so."""
    parse_rules(options.typed_rules, [tool.name for tool in tools])
    mode, directory = options.settings.permission_mode, options.directory
    if mode == "ask":
        raise UsageError(
            "a batch asks nobody: --permission-mode accept-edits changes files, plan only reads"
        )
    if applies and mode is None and repository_top(directory) is None:
        raise UsageError(
            f"{directory} is no git repository, so changes could not be taken back; "
            "--permission-mode accept-edits allows them, --dry-run shows them"
        )


def refusal(item: Item, own: Path | None, root: Path, scope: tuple[str, ...], path: Path) -> str:
    """Why an item may not change `path` (free of symlinks), "" where it may."""
    relative = os.path.relpath(path, root)
    if any(part.casefold() == ".ds4" for part in path.parts):
        return "what may run later is not changed in a batch"
    if path == own or (
        path.is_relative_to(root) and any(fits(pattern, relative) for pattern in scope)
    ):
        return ""
    if own is None:
        return "only files of --scope may be changed here" if scope else "nothing may be changed"
    beside = " and files of --scope" if scope else ""
    return f"only {item.path}{beside} may be changed here"


def item_agent(
    kit: Kit,
    trunk: Trunk,
    context: HeadStart,
    stage: ItemStage,
    tree: Tree,
    item: Item,
    own: Path | None,
) -> Agent:
    """The agent of one item over its own fork."""
    from ds4_agent.agent.calls import CallRunner
    from ds4_agent.agent.identity import Identity
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.record import Recorder
    from ds4_agent.agent.transcript import Place, Transcript
    from ds4_agent.tools.types import ToolContext
    from ds4_agent.tools.workspace import Workspace

    options, engine = kit.options, kit.engine
    workspace = Workspace(options.directory, options.add_dirs, stage=stage)
    tools = tuple(_seeing(tool, stage, tree, item.number, own) for tool in kit.tools)

    def tool_context(cancel: threading.Event, on_output: Callable[[str], None]) -> ToolContext:
        return ToolContext(workspace, kit.processes, cancel, on_output)

    identity = Identity(
        session_id=f"{kit.batch}/{item.number}",
        model=engine.model_name,
        directory=os.fspath(options.directory),
        tools=tuple(tool.name for tool in tools),
    )
    return Agent(
        identity,
        kit.model,
        Transcript(Place(context), engine.tokenizer, engine.context_length),
        CallRunner(
            tools, tool_context, _approvals(options, tools), threading.Event(), workspace=workspace
        ),
        Recorder(None, (), time.time),
        prefix=(),  # it is in the context already
        limits=kit.limits,
        new_context=trunk.context.fork,
    )


def second_agent(kit: Kit, trunk: Trunk, first: Agent, number: int) -> Agent:
    """Try `number` of an item: a fork of the one before it, which knows all that one did and leaves
    its state as it is. Its calls have names of their own."""
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.record import Recorder

    live = first.forked()
    return Agent(
        replace(first.identity, task=f"try_{number}"),
        live.model,
        live.fork(),
        first.runner,
        Recorder(None, (), time.time),
        prefix=(),
        limits=kit.limits,
        new_context=trunk.context.fork,
        tail=live.tail,
        announcement=live.opening,
    )


def _approvals(options: RunOptions, tools: tuple[Tool, ...]) -> Approvals:
    """Reading, changing the files of the stage, and what rules allow: there is nobody to ask."""
    names = [tool.name for tool in tools]
    settings = options.settings
    mode: Mode = "plan" if settings.permission_mode == "plan" else "deny"
    own = () if settings.permission_mode == "deny" else EDITING
    return Approvals(
        mode=mode,
        allow=(*own, *parse_rules(settings.allowed_tools, names, is_typed=False)),
        deny=parse_rules(settings.disallowed_tools, names, is_typed=False),
        ask=parse_rules(settings.asked_tools, names, is_typed=False),
    )


def _seeing(tool: Tool, stage: ItemStage, tree: Tree, number: int, own: Path | None) -> Tool:
    """The tool, which sees what the item has changed so far."""
    from ds4_agent.tools.types import ToolError

    if tool.name in STAGED:
        return tool

    def run(context: Any, **arguments: Any) -> ToolOutput:
        only_reads = tool.effect_of(arguments) == "read"
        if only_reads and not stage.changes:
            return tool.run(context, **arguments)
        if arguments.get("background"):
            raise ToolError("in a batch no command goes on by itself; leave out background")
        with tree.with_changes(number, stage, own, only_reads=only_reads):
            return tool.run(context, **arguments)

    return replace(tool, run=run)
