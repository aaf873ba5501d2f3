"""The permissions of a run: its mode, its rules, and who is asked.

In: `RunOptions` and the tools there are. Out: `Approvals`, and what the user is told about them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ds4_agent.agent.approval import Approvals, ApprovalsLog, Approver, CommandApprover, Mode
from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.repository import repository_top
from ds4_agent.agent.rules import parse_rules

if TYPE_CHECKING:
    from ds4_agent.agent.options import RunOptions
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.types import Tool

__all__ = ["approvals", "choose_approver", "default_mode", "idle_rules", "mode_notices"]


def default_mode(options: RunOptions) -> Mode:
    """The permission mode: as set, else `ask` where somebody can be asked. Headless it is `auto` in
    a git repository, whose files can be had back, and `ask` (which refuses) anywhere else."""
    if options.settings.permission_mode is not None:
        return cast(Mode, options.settings.permission_mode)
    if not options.is_headless or options.settings.approver is not None:
        return "ask"
    return "auto" if repository_top(options.directory) else "ask"


def mode_notices(options: RunOptions, mode: Mode) -> list[str]:
    """What is said where nobody chose the mode."""
    if options.yolo or not options.is_headless or options.settings.permission_mode is not None:
        return []
    if mode == "auto":
        return ["files may be changed and commands run here (--permission-mode ask|plan|…)"]
    if repository_top(options.directory) is None:
        return [
            f"{options.directory} is no git repository, so changes could not be taken back and are "
            "refused; --permission-mode auto allows them"
        ]
    return []


def approvals(options: RunOptions, tools: Sequence[Tool], log: ApprovalsLog | None) -> Approvals:
    """The permissions, with nobody to ask yet. Raises UsageError."""
    names = [tool.name for tool in tools]
    parse_rules(options.typed_rules, names)
    settings = options.settings
    return Approvals(
        mode=default_mode(options),
        allow=parse_rules(settings.allowed_tools, names, is_typed=False),
        deny=parse_rules(settings.disallowed_tools, names, is_typed=False),
        ask=parse_rules(settings.asked_tools, names, is_typed=False),
        yolo=options.yolo,
        log=log,
        keep=lambda rule: _kept(options.places.config_file, rule),
    )


def idle_rules(options: RunOptions, tools: Sequence[Tool]) -> list[str]:
    """A notice for each rule of config.toml that speaks of no tool there is."""
    names = [tool.name for tool in tools]
    settings = options.settings
    texts = (*settings.allowed_tools, *settings.disallowed_tools, *settings.asked_tools)
    rules = parse_rules(texts, names, is_typed=False)
    return [
        f"the rule `{rule.text}` of config.toml speaks of no tool that is loaded here"
        for rule in rules
        if not rule.names_any(names)
    ]


def choose_approver(
    approvals: Approvals,
    options: RunOptions,
    processes: Processes,
    cancel: threading.Event,
    session_id: str,
    approver: Approver | None,
) -> None:
    """An `--approver` command goes before `approver`."""
    command = options.settings.approver
    if command is None:
        approvals.approver = approver
        return

    def run(line: str, stdin: bytes) -> tuple[int, str]:
        shell = ["/bin/sh", "-c", line]
        job = processes.start(shell, options.directory, input_bytes=stdin)
        if not job.wait(cancel, lambda _: None) or job.ended is None:
            return 130, ""
        return job.ended.code, job.output.text()

    approvals.approver = CommandApprover(command, run, session_id, os.fspath(options.directory))
    approvals.approver_name = "approver"


def _kept(config_file: Path, rule: str) -> str:
    from ds4_agent.agent.lasting_rules import add_allow_rule

    try:
        add_allow_rule(config_file, rule)
    except UsageError as error:
        return f"{one_line(rule)} is allowed in this session only: {error}"
    return f"{one_line(rule)} is allowed from now on: {config_file}, [permissions]"
