"""The tools `bash`, `bash_status` and `bash_stop`.

In: a shell command, or the number of a background job. Out: how it ended and what it printed. Each
command starts in the workspace with a fresh shell and no input; no terminal, no user's rc files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ds4_agent.tools.api import tool
from ds4_agent.tools.process import Ended, Job
from ds4_agent.tools.types import ToolContext, ToolError, ToolResult

DEFAULT_TIMEOUT_S = 120
LONGEST_TIMEOUT_S = 24 * 3600
# A fixed shell: `sh` is another one on each system.
SHELLS = ("/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/opt/homebrew/bin/bash")


@tool(effect="execute")
def bash(
    context: ToolContext, command: str, timeout: int | None = None, background: bool = False
) -> ToolResult:
    """Run a bash command in the workspace; state does not carry over to the next command.

    command: what to run
    timeout: seconds until it is stopped (default 120; none in background)
    background: start it as a job and go on; see bash_status and bash_stop
    """
    if not command.strip() or "\0" in command:
        raise ToolError("the command is empty" if not command.strip() else "the command holds NUL")
    if timeout is not None and not 1 <= timeout <= LONGEST_TIMEOUT_S:
        raise ToolError(f"timeout must be between 1 and {LONGEST_TIMEOUT_S} seconds")
    arguments = [shell(), "--noprofile", "--norc", "-c", command]
    directory = context.workspace.root
    processes = context.processes
    try:
        if background:
            number = processes.start_background(arguments, directory, timeout=timeout)
            return ToolResult(f"started job {number}")
        limit = DEFAULT_TIMEOUT_S if timeout is None else timeout
        job = processes.start(arguments, directory, timeout=limit)
    except OSError as error:
        raise ToolError(f"cannot start the command: {(error.strerror or str(error))}") from error
    finished = job.wait(context.cancel, context.on_output)
    if not finished or job.ended is None:
        return ToolResult(_report("interrupted", job.output.text()), is_error=True)
    return ToolResult(
        _report(_ending(job.ended, limit), job.output.text(), job.ended),
        is_error=job.ended.how != "exited",
    )


@tool(effect="read")
def bash_status(context: ToolContext, job: int) -> ToolResult:
    """Tell how a background job does and what it printed since the last look.

    job: number of the job
    """
    found = _job(context, job)
    ended = found.ended
    state = "running" if ended is None else _ending(ended, None)
    return ToolResult(_report(f"job {job}: {state}", found.output.fresh(), ended, new="new "))


@tool(effect="execute")
def bash_stop(context: ToolContext, job: int) -> ToolResult:
    """Stop a background job and all its processes.

    job: number of the job
    """
    found = _job(context, job)
    if found.ended is not None:
        state = f"job {job} had ended before: {_ending(found.ended, None)}"
    else:
        found.stop()
        stopped = found.wait(context.cancel)
        state = f"stopped job {job}" if stopped else f"job {job} is being stopped"
    return ToolResult(_report(state, found.output.fresh(), new="new "))


def shell() -> str:
    """The bash to run. Raises ToolError where there is none."""
    for path in SHELLS:
        if Path(path).is_file():
            return path
    raise ToolError("there is no bash on this machine; install it")


def _job(context: ToolContext, number: int) -> Job:
    jobs = context.processes.jobs
    if number not in jobs:
        known = f"; there are {', '.join(map(str, jobs))}" if jobs else "; none was started"
        raise ToolError(f"there is no job {number}{known}")
    return jobs[number]


def _ending(ended: Ended, limit: int | None) -> str:
    if ended.how == "timed out":
        return "timed out" if limit is None else f"timed out after {limit} s"
    return f"exit code {ended.code}" if ended.how == "exited" else "stopped"


def _report(state: str, output: str, ended: Ended | None = None, **words: Any) -> str:
    note = ""
    if ended is not None and ended.left_running:
        note = "\n[processes it left running were stopped; use background for those]"
    if not output:
        return f"{state}, no {words.get('new', '')}output{note}"
    return state + "\n" + output.removesuffix("\n") + note
