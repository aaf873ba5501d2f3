"""An executable as a tool: any program that answers `--ds4-describe` and reads JSON on stdin.

In: the path of a program. Out: a Tool whose call starts the program in the workspace, gives it the
arguments as one JSON object on stdin and returns its stdout; its stderr is told only when it fails.
It is described in its own directory, within seconds; nothing else of it is ever looked at.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from ds4_agent.tools.plugin_checks import PluginError, check_tool
from ds4_agent.tools.process import Job, Processes
from ds4_agent.tools.shell import shell
from ds4_agent.tools.types import Tool, ToolContext, ToolError, ToolOutput

DESCRIBE_S = 5.0
RUN_S = 120.0  # as `bash` has it
FIX = "print {name, description, parameters, effect} for --ds4-describe"
KNOWN = frozenset({"name", "description", "parameters", "effect"})

DESCRIBING = 'exec "$0" --ds4-describe 2>/dev/null'
# stdout is the result, so stderr goes another way: its end is kept, and follows when $0 has failed.
# A timeout sends TERM to all of them: only $0 ends by it, so that what it said is still told.
RUNNING = """\
set -o pipefail
trap : TERM
kept() { trap '' TERM; tail -c 4000 | tr -d '\\0'; }
{ errors=$(trap : TERM; "$0" 2>&1 >&3 3>&- | kept); } 3>&1
code=$?
[ $code = 0 ] || printf '\\n%s' "$errors"
exit $code
"""


def start_describing(path: Path, processes: Processes) -> Job:
    """Ask a program what it is. Raises PluginError when it cannot be started."""
    try:
        return processes.start(_command(DESCRIBING, path), path.parent, timeout=DESCRIBE_S)
    except (OSError, ValueError, ToolError) as error:
        raise PluginError(f"it cannot be started: {error}", "correct the file") from error


def described(path: Path, job: Job) -> Tool:
    """The tool a program says it is; waits for its answer. Raises PluginError."""
    job.wait(threading.Event())
    assert job.ended is not None
    if job.ended.how != "exited":
        raise PluginError(f"it did not answer --ds4-describe within {DESCRIBE_S:g} s", FIX)
    if job.ended.code != 0:
        raise PluginError(f"--ds4-describe ended with exit code {job.ended.code}", FIX)
    if job.output.is_cut:
        raise PluginError("its answer to --ds4-describe is too long", FIX)
    try:
        answer = json.loads(job.output.text())
    except (ValueError, RecursionError) as error:
        raise PluginError(f"its answer to --ds4-describe is no JSON ({error})", FIX) from error
    return _tool(path, answer)


def _tool(path: Path, answer: Any) -> Tool:
    if not isinstance(answer, dict) or not answer.keys() >= {"name", "description"}:
        raise PluginError("its answer to --ds4-describe has no name and description", FIX)
    unknown = sorted(answer.keys() - KNOWN)
    if unknown:
        raise PluginError(f"its description has the unknown key {unknown[0]!r}", FIX)
    parameters = answer.get("parameters") or {"type": "object"}
    if isinstance(parameters, dict):  # a tool without parameters may leave all of it out
        parameters = {"properties": {}, "required": [], **parameters}
    tool = Tool(
        name=answer["name"],
        description=answer["description"],
        parameters=parameters,
        effect=answer.get("effect", "execute"),
        run=lambda context, /, **arguments: _run(path, context, arguments),
    )
    check_tool(tool)
    return tool


def _run(path: Path, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
    try:
        job = context.processes.start(
            _command(RUNNING, path),
            context.workspace.root,
            timeout=RUN_S,
            input_bytes=json.dumps(arguments).encode() + b"\n",
        )
    except OSError as error:
        raise ToolError(f"cannot start {path.name}: {error.strerror or error}") from error
    if not job.wait(context.cancel, context.on_output) or job.ended is None:
        raise ToolError("interrupted")
    output = job.output.text().strip("\n")
    if job.ended.how != "exited":
        ending = f"did not end within {RUN_S:g} s and was stopped"
    elif job.ended.code != 0:
        ending = f"ended with exit code {job.ended.code}"
    else:
        return output or "done"
    raise ToolError(f"{path.name} {ending}" + (f"\n{output}" if output else ""))


def _command(script: str, path: Path) -> list[str]:
    return [shell(), "--noprofile", "--norc", "-c", script, str(path)]
