"""Who may do what: permission modes, rules, and the question to whoever can answer it.

In: a tool call. Out: a `Verdict`: allowed, or refused with the reason the model is told. Order:
refusing rules, then `--yolo`, the mode's own refusals, asking rules, allowing rules, what the mode
allows, what was allowed for the session, and only then a question. Nothing that is not allowed ever
runs. No mode allows what leads outside the workspace: only `--yolo`, an answer, or a rule with a
pattern for where it really leads.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.events import (
    ApprovalAsked,
    ApprovalDecided,
    ApprovalRequest,
    Decision,
    Notice,
)
from ds4_agent.agent.lasting_rules import rule_for
from ds4_agent.agent.rules import Rule, allowed_by, denied_by, parse_rules, subject

__all__ = ["Approvals", "ApprovalsLog", "Approver", "CommandApprover", "Mode"]

Mode = Literal["ask", "accept-edits", "plan", "auto", "deny"]


class Approver(Protocol):
    """Someone to ask: the screen, the plain prompt, or a command.

    `decide` blocks until there is an answer and must return a refusal soon after the run is
    interrupted. It is called in the thread that runs the agent or one of its
    sub-agents, once at a time.
    """

    def decide(self, request: ApprovalRequest) -> Decision: ...


class ApprovalsLog:
    """`--approvals-log FILE`: each request with its decision, one JSON object a line, appended."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError if the file cannot be opened."""
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        self._path = path
        self.failure = ""

    def write(self, decided: ApprovalDecided) -> None:
        request, decision = decided.request, decided.decision
        record = {
            "call_id": request.call_id,
            "task": request.task,
            "tool": request.tool,
            "effect": request.effect,
            "arguments": dict(request.arguments),
            "reason": request.reason,
            "decision": decision.behaviour,
            "decision_reason": decision.reason,
            "source": decided.source,
        }
        try:
            os.write(self._descriptor, (json.dumps(record) + "\n").encode())
        except OSError as error:
            self.failure = f"decisions are not logged: {self._path}: {error.strerror or error}"

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True)
class CommandApprover:
    """`--approver CMD`: the request as JSON on its stdin; its last line of output decides.

    `run(command, stdin)` runs a shell command and returns its exit code and output (the one place
    that starts processes gives it). What cannot be understood is a refusal.
    """

    command: str
    run: Callable[[str, bytes], tuple[int, str]]
    session_id: str
    directory: str

    def decide(self, request: ApprovalRequest) -> Decision:
        question = {
            "session_id": self.session_id,
            "cwd": self.directory,
            "call_id": request.call_id,
            "task": request.task,
            "tool": request.tool,
            "effect": request.effect,
            "arguments": dict(request.arguments),
            "reason": request.reason,
        }
        try:
            code, output = self.run(self.command, (json.dumps(question) + "\n").encode())
        except OSError as error:
            return Decision("deny", f"the approver could not be run: {error.strerror or error}")
        # The last line: what a shell complains about on stderr comes before the answer.
        answer = output.strip().rpartition("\n")[2]
        word, _, reason = answer.strip().partition(" ")
        if code != 0:
            return Decision("deny", f"the approver failed with exit code {code}")
        if word == "allow" and not reason:
            return Decision("allow")
        if word == "allow-session" and not reason:
            return Decision("allow-session")
        if word == "deny":
            return Decision("deny", reason.strip())
        return Decision("deny", "the approver answered neither allow, allow-session nor deny")


@dataclass
class Approvals:
    """The permissions of one session. `mode` may be changed between calls (the screen does).
    `keep` writes a rule for the sessions to come and says in one line what became of it."""

    mode: Mode
    allow: Sequence[Rule] = ()
    deny: Sequence[Rule] = ()
    ask: Sequence[Rule] = ()
    yolo: bool = False
    approver: Approver | None = None
    approver_name: str = "user"  # who is named as the source of its decisions
    log: ApprovalsLog | None = None
    keep: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        self._session: set[tuple[str, str, str]] = set()
        self._one_question = threading.Lock()  # at a time: sub-agents ask as well

    @property
    def may_ask(self) -> bool:
        """Whether a command may be asked about: what a person needs for it is gathered."""
        return not self.yolo and (self.mode != "auto" or bool(self.ask))

    def decide(
        self, request: ApprovalRequest
    ) -> Generator[ApprovalAsked | ApprovalDecided | Notice, None, ApprovalDecided]:
        """The decision. Yields nothing for a call that is simply allowed, the refusal for one that
        is simply refused, else the question and then its answer, and what became of a rule.
        """
        decided = self._settled(request)
        kept = ""
        if decided is None:
            with self._one_question:
                decided = self._settled(request)  # the answer before may have settled it
                if decided is None:
                    decided, kept = yield from self._question(request)
        if decided.source:
            if self.log is not None:
                self.log.write(decided)
            yield decided
        if kept:
            yield Notice(kept)
        return decided

    def _question(
        self, request: ApprovalRequest
    ) -> Generator[ApprovalAsked, None, tuple[ApprovalDecided, str]]:
        asking = self._asking(request)
        if asking is None and self.keep is not None:  # no rule can answer one that asks
            rule = rule_for(request.tool, request.effect, request.arguments, request.outside)
            request = replace(request, rule=rule)
        yield ApprovalAsked(request)
        decision = self._ask(request)
        kept = ""
        if decision.behaviour == "allow-session":
            self._session.add(_session_key(request, asking))
        elif decision.behaviour == "allow-always":
            kept = self._always(request)
        return ApprovalDecided(request, decision, self.approver_name), kept

    def _always(self, request: ApprovalRequest) -> str:
        """Allow calls like this one from now on; what to tell."""
        if not request.rule or self.keep is None:
            return ""
        self.allow = (*self.allow, *parse_rules([request.rule], [request.tool]))
        return self.keep(request.rule)

    def _settled(self, request: ApprovalRequest) -> ApprovalDecided | None:
        """The decision that needs no question; source "" when there is nothing to tell."""
        tool, arguments, effect = request.tool, request.arguments, request.effect
        rule = denied_by(self.deny, tool, arguments)
        rule = rule or denied_by(self.deny, tool, _really(request))
        if rule is not None:
            return _refused(request, f"the rule {rule.text} forbids it", "rule")
        if self.yolo:
            return _allowed(request)
        if self.mode == "plan" and effect != "read":
            return _refused(request, "plan mode only reads; describe the change instead", "mode")
        asking = self._asking(request)
        if asking is None and self._is_allowed(request):
            return _allowed(request)
        if _session_key(request, asking) in self._session:
            return _allowed(request)
        if self.mode == "deny":
            return _refused(request, "only reading and what a rule allows is permitted", "mode")
        if self.approver is None:
            why = f"{_need(request, asking)}, and there is nobody to ask"
            return _refused(request, why, "headless")
        return None

    def _is_allowed(self, request: ApprovalRequest) -> bool:
        """By a rule or the mode, where no rule asks."""
        if request.outside:
            named = [rule for rule in self.allow if rule.pattern is not None]
            return allowed_by(named, request.tool, _really(request)) is not None
        if allowed_by(self.allow, request.tool, request.arguments) is not None:
            return True
        return request.effect in _ALLOWED[self.mode]

    def _asking(self, request: ApprovalRequest) -> Rule | None:
        asking = denied_by(self.ask, request.tool, request.arguments)
        return asking or denied_by(self.ask, request.tool, _really(request))

    def _ask(self, request: ApprovalRequest) -> Decision:
        assert self.approver is not None  # _settled refuses without one
        return self.approver.decide(request)


_ALLOWED: Mapping[Mode, tuple[str, ...]] = {
    "auto": ("read", "edit", "execute"),
    "accept-edits": ("read", "edit"),
    "ask": ("read",),
    "plan": ("read",),
    "deny": ("read",),
}
_NEEDS = {
    "edit": "changing files needs approval",
    "execute": "running commands needs approval",
}


def _session_key(request: ApprovalRequest, asking: Rule | None) -> tuple[str, str, str]:
    """What an `allow-session` covers: the very same command; any call of a tool on files, but where
    a rule asks only those on the same path, and outside the workspace this one file."""
    if request.outside:
        return request.tool, "outside", request.outside
    if request.effect == "execute" or asking is not None:
        return request.tool, "call", subject(request.tool, request.arguments)
    return request.tool, "effect", request.effect


def _really(request: ApprovalRequest) -> Mapping[str, Any]:
    """The arguments, with the path that a link or `..` leads to."""
    if not request.outside:
        return request.arguments
    return {**request.arguments, "path": request.outside}


def _need(request: ApprovalRequest, asking: Rule | None) -> str:
    """Why there is a question."""
    if request.outside:
        return f"{request.outside} is outside the workspace"
    return _NEEDS[request.effect] if asking is None else f"the rule {asking.text} asks first"


def _allowed(request: ApprovalRequest) -> ApprovalDecided:
    return ApprovalDecided(request, Decision("allow"), "")


def _refused(request: ApprovalRequest, reason: str, source: str) -> ApprovalDecided:
    return ApprovalDecided(request, Decision("deny", reason), source)
