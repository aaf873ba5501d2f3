"""Events as the lines of `--output-format stream-json`; the session's event log has the same lines.

In: events, in order. Out: JSON-ready dicts of the shapes in `stream_schema.json`. Deltas are
gathered: a message is told once, whole, when its step is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ds4_agent.agent import events as ev

__all__ = ["Lines", "exit_code", "result_line"]

Line = dict[str, Any]
FINISHED, LIMIT, ABORTED = 0, 3, 4


class Lines:
    """Turns the events of one session into lines."""

    def __init__(self) -> None:
        self._session = ""
        self._thinking = ""
        self._text = ""
        self._uses: dict[str, Line] = {}  # the step's calls, also those that came to nothing
        self._known: set[str] = set()
        self._tasks: dict[str, Lines] = {}

    def feed(self, event: ev.Event) -> list[Line]:
        """The lines this event completes: none or one."""
        match event:
            case ev.ThinkingDelta(text):
                self._thinking += text
            case ev.TextDelta(text):
                self._text += text
            case ev.CallStarted(call_id, name):
                self._use(call_id, name, {})
            case ev.CallArgument(call_id, name, text) if call_id in self._uses:
                written = self._uses[call_id]["input"]
                written[name] = written.get(name, "") + text
            case ev.CallReady(call_id, name, arguments):
                self._use(call_id, name, dict(arguments))
            case ev.RunStarted():
                self._session = event.session_id
                return [_init(event)]
            case ev.StepFinished():
                return [*self._assistant(), _step(event)]
            case ev.CallFinished() if event.id in self._known:
                return [self._tool_result(event)]
            case ev.PrefillProgressed():
                return [_prefill(event)]
            case ev.ApprovalAsked(request):
                return [_approval("asked", request)]
            case ev.ApprovalDecided(request, decision, source):
                words = {"decision": decision.behaviour, "decision_reason": decision.reason}
                return [_approval("decided", request) | words | {"source": source}]
            case ev.Notice(text):
                return [_engine("notice", text=text)]
            case ev.Steered(text):
                return [self._message("user", [{"type": "text", "text": text}])]
            case ev.Compacted(summary, tokens):
                return [_engine("compacted", summary=summary, context_tokens=tokens)]
            case ev.TurnEnded():
                return [result_line(event, self._session)]
            case ev.TaskEvent(task, inner):
                return self._of_task(task, inner)
            case _:
                pass
        return []

    def _of_task(self, task: str, event: ev.Event) -> list[Line]:
        """A sub-agent's lines name its call. Its beginning and its end are that call's."""
        if isinstance(event, ev.TurnEnded):
            self._tasks.pop(task, None)
            return []
        if task not in self._tasks:
            self._tasks[task] = Lines()
            self._tasks[task]._session = self._session
        if isinstance(event, ev.RunStarted):
            return []
        return [line | {"parent_tool_use_id": task} for line in self._tasks[task].feed(event)]

    def _use(self, call_id: str, name: str, arguments: Line) -> None:
        self._known.add(call_id)
        use = {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
        self._uses[call_id] = use

    def _assistant(self) -> list[Line]:
        content: list[Line] = []
        if self._thinking:
            content.append({"type": "thinking", "thinking": self._thinking})
        text = self._text.rstrip("\n") if self._uses else self._text
        if text:
            content.append({"type": "text", "text": text})
        content += self._uses.values()
        self._thinking, self._text, self._uses = "", "", {}
        return [self._message("assistant", content)] if content else []

    def _tool_result(self, event: ev.CallFinished) -> Line:
        block = {
            "type": "tool_result",
            "tool_use_id": event.id,
            "content": event.content,
            "is_error": event.is_error,
        }
        return self._message("user", [block])

    def _message(self, role: str, content: list[Line]) -> Line:
        message = {"role": role, "content": content}
        return {"type": role, "message": message, "session_id": self._session}


def result_line(event: ev.TurnEnded, session_id: str) -> Line:
    """The last line of a run, and the whole of `--output-format json`."""
    kinds = {"end": "success", "interrupted": "aborted"}
    subtype = kinds.get(event.reason, "limit")
    return {
        "type": "result",
        "subtype": subtype,
        "is_error": subtype != "success",
        "result": event.text,
        "stop_reason": event.detail or event.reason,
        "session_id": session_id,
        "num_turns": event.steps,
        "duration_ms": round(event.seconds * 1000),
        "usage": asdict(event.usage),
    }


def exit_code(reason: ev.TurnReason) -> int:
    """The exit code of a headless run that ended so (signals have their own)."""
    return {"end": FINISHED, "interrupted": ABORTED}.get(reason, LIMIT)


def _init(event: ev.RunStarted) -> Line:
    return {
        "type": "system",
        "subtype": "init",
        "session_id": event.session_id,
        "cwd": event.directory,
        "model": event.model,
        "tools": list(event.tools),
    }


def _step(event: ev.StepFinished) -> Line:
    return _engine(
        "step",
        usage=asdict(event.usage),
        context_tokens=event.context_tokens,
        context_limit=event.context_limit,
        tok_s=round(event.tokens_per_second, 1),
    )


def _prefill(event: ev.PrefillProgressed) -> Line:
    return _engine(
        "prefill",
        done=event.done,
        total=event.total,
        reused=event.reused,
        restored=event.restored,
        tok_s=round(event.tokens_per_second, 1),
    )


def _engine(name: str, **fields: Any) -> Line:
    return {"type": "engine", "event": name, **fields}


def _approval(name: str, request: ev.ApprovalRequest) -> Line:
    arguments: Mapping[str, Any] = request.arguments
    return {
        "type": "approval",
        "event": name,
        "tool_use_id": request.call_id,
        "tool": request.tool,
        "effect": request.effect,
        "input": dict(arguments),
        "reason": request.reason,
    }
