"""The few types every tool turns on: Tool, ToolResult, ToolContext, ToolError.

In: nothing. Out: plain data. This module runs nothing and imports no other tool at run time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ds4_agent.tools.process import Processes
    from ds4_agent.tools.workspace import Workspace

Effect = Literal["read", "edit", "execute"]


class ToolError(Exception):
    """A tool could not do what was asked; the message goes to the model as `Error: …`."""


@dataclass(frozen=True)
class ToolResult:
    """What the model reads. `diff` is a unified diff for the screen ("" when nothing changed)."""

    content: str
    is_error: bool = False
    diff: str = ""


ToolOutput = ToolResult | str


@dataclass(frozen=True)
class TaskRequest:
    """A sub-agent to be started. `tools` None: all; `isolated`: in a git worktree of its own."""

    prompt: str
    tools: tuple[str, ...] | None = None
    isolated: bool = False


@dataclass
class ToolContext:
    """What a running tool may touch: `cancel` is looked at often, `on_output` gets progress;
    `start_task` runs a sub-agent to its end (None: no such may be started)."""

    workspace: Workspace
    processes: Processes
    cancel: threading.Event = field(default_factory=threading.Event)
    on_output: Callable[[str], None] = lambda _text: None
    start_task: Callable[[TaskRequest], ToolResult] | None = None


@dataclass(frozen=True)
class Tool:
    """A tool the model can call.

    `parameters` is a JSON schema of type object whose properties stand in the order of the
    signature. `run(context, **arguments)` gets validated arguments only. `effect` is that of most
    calls, and what is listed; `effect_of` tells that of one call, and is what is asked about.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    effect: Effect
    run: Callable[..., ToolOutput]
    classify: Callable[[Mapping[str, Any]], Effect] | None = None

    def schema(self) -> dict[str, Any]:
        """name, description and parameters, in the order the prompt format has them."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }

    def signature(self) -> str:
        """`read(path, start_line?, max_lines?)`: a question mark where it may be left out."""
        required = self.parameters.get("required", ())
        names = (n if n in required else f"{n}?" for n in self.parameters["properties"])
        return f"{self.name}({', '.join(names)})"

    def effect_of(self, arguments: Mapping[str, Any]) -> Effect:
        """The effect of this very call: `git` with action status only reads, with commit not."""
        return self.classify(arguments) if self.classify else self.effect
