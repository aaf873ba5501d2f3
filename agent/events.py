"""What happens in a run, as one union of small frozen dataclasses. This file is the design
document: screen, plain prompt, headless output and tests all read these same events.

Four lifecycles, nested, each opened and closed exactly once, whatever goes wrong:

    RunStarted … TurnEnded                            one user prompt
      StepStarted … StepFinished                      one model generation
        CallStarted … CallReady … CallFinished        one tool call (CallReady only if it is whole)
          ApprovalAsked … ApprovalDecided             one question about it (only if it is asked;
                                                    ApprovalDecided alone if refused unasked)

A sub-agent is a run inside one `task` call, between its CallReady and its CallFinished: each of its
events comes as a `TaskEvent`, those of several in any order among each other.

A call id is unique in its session. `CallStarted`, `CallArgument` and `CallReady` come while the
model writes, before `StepFinished`; `CallFinished` comes after it, when the call has been answered.
An infrastructure error (`EngineError`) is raised from the run instead of being an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TurnReason = Literal[
    "end",  # the model ended its turn
    "max_turns",  # as many model steps as allowed
    "max_tokens",  # as many output tokens as allowed
    "time_limit",
    "context",  # the context is full
    "repeated_call",  # the same call for the third time, nothing having changed
    "malformed",  # several steps in a row whose calls could not be read
    "interrupted",
]
Behaviour = Literal["allow", "allow-session", "allow-always", "deny"]


@dataclass(frozen=True)
class Usage:
    """Exact token counts. `input_tokens` = `cached_tokens` + `prefilled_tokens` unless interrupted.

    input: what had to be there before sampling (prompts, tool results; the whole conversation
    where a session goes on); cached: positions whose state was
    restored from disk; prefilled: positions computed before sampling; output: every id of the
    model's steps; forced: those of them the grammar left no choice about (never sampled); drafted:
    ids that were guessed and computed beside one that was known; accepted: those of the output
    that were guessed right, so that what follows them needed no pass of its own.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    prefilled_tokens: int = 0
    output_tokens: int = 0
    forced_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.prefilled_tokens + other.prefilled_tokens,
            self.output_tokens + other.output_tokens,
            self.forced_tokens + other.forced_tokens,
            self.drafted_tokens + other.drafted_tokens,
            self.accepted_tokens + other.accepted_tokens,
        )


@dataclass(frozen=True)
class ApprovalRequest:
    """A call that needs a yes. `arguments` is exactly what will run; `reason`: why it is asked;
    `outside`: where its path really leads, if that is outside the workspace, else ""; `real`: where
    the path of a file tool really leads, every link resolved; `rule`: what `allow-always` writes to
    config.toml, "" where no rule means just this; `task`: the call of the sub-agent that wants it,
    "" for the agent itself."""

    call_id: str
    tool: str
    effect: Literal["read", "edit", "execute"]
    arguments: Mapping[str, Any]
    reason: str
    outside: str = ""
    real: str = ""
    rule: str = ""
    task: str = ""


@dataclass(frozen=True)
class Decision:
    """The answer. `allow-session` also allows, until the session ends, the same command (of bash
    and other tools that run something) or every call of the same tool (of those that change
    files); `allow-always` does so for ever, by a rule in config.toml; `reason` of a refusal is what
    the model is told."""

    behaviour: Behaviour
    reason: str = ""


@dataclass(frozen=True)
class RunStarted:
    """First event of every run."""

    session_id: str
    prompt: str
    model: str
    directory: str
    tools: tuple[str, ...]


@dataclass(frozen=True)
class StepStarted:
    """The model is about to be fed `tokens` more tokens and to answer. `step` counts from 1."""

    step: int
    tokens: int


@dataclass(frozen=True)
class PrefillProgressed:
    """A chunk is computed: `done` of `total` new tokens over `reused` tokens already computed,
    `restored` of which were read from disk for this step."""

    done: int
    total: int
    reused: int
    tokens_per_second: float
    restored: int = 0


@dataclass(frozen=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class CallStarted:
    """The tool's name is written. It is one of the declared names unless the grammar is off."""

    id: str
    name: str


@dataclass(frozen=True)
class CallArgument:
    """More of the parameter `name` of call `id` (raw text for strings, JSON text for the rest)."""

    id: str
    name: str
    delta: str


@dataclass(frozen=True)
class CallReady:
    """The call is whole and well-formed; it has not run yet."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class StepFinished:
    """The model's step is over. `context_tokens` of `context_limit` are in use now."""

    usage: Usage
    context_tokens: int
    context_limit: int
    tokens_per_second: float


@dataclass(frozen=True)
class ApprovalAsked:
    request: ApprovalRequest


@dataclass(frozen=True)
class ApprovalDecided:
    """`source` names who decided: a rule, the mode, the approver, or the user."""

    request: ApprovalRequest
    decision: Decision
    source: str


@dataclass(frozen=True)
class ToolOutput:
    """Output of a running tool, as it comes; the same text may be cut in the call's result."""

    id: str
    text: str


@dataclass(frozen=True)
class CallFinished:
    """The call is answered: `content` is what the model reads. `ran` is False when nothing ran
    (refused, malformed, answered from memory, interrupted before its start)."""

    id: str
    name: str
    content: str
    is_error: bool = False
    diff: str = ""
    ran: bool = True


@dataclass(frozen=True)
class Notice:
    """One line for the user that changes nothing about the run."""

    text: str


@dataclass(frozen=True)
class Steered:
    """What the user said while the model worked is now given to it, with the results of its calls.
    Comes before the step that reads it."""

    text: str


@dataclass(frozen=True)
class Compacted:
    """The conversation goes on in a new branch that begins with `summary`. The old one, of
    `context_tokens`, stays and can be returned to. `usage` is what the summary cost where no turn
    counts it (`/compact`)."""

    summary: str
    context_tokens: int
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class TurnEnded:
    """Last event of every run. `text`: the last step's answer; `steps`: model steps made."""

    reason: TurnReason
    text: str
    usage: Usage
    steps: int
    seconds: float
    detail: str = field(default="")  # one sentence for the user when the reason is not "end"
    prefill_rate: float = 0.0  # tokens a second of the longest prefill; 0: none that tells


@dataclass(frozen=True)
class TaskEvent:
    """What the sub-agent of the `task` call `task` does. `event` is no `TaskEvent`."""

    task: str
    event: Event


Event = (
    RunStarted
    | StepStarted
    | PrefillProgressed
    | ThinkingDelta
    | TextDelta
    | CallStarted
    | CallArgument
    | CallReady
    | StepFinished
    | ApprovalAsked
    | ApprovalDecided
    | ToolOutput
    | CallFinished
    | Notice
    | Steered
    | Compacted
    | TurnEnded
    | TaskEvent
)
