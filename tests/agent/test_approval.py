"""Nothing that is not allowed ever runs; what was decided, and by whom, is written down."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.approval import Approvals
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.loop import Agent
from ds4_agent.agent.rules import parse_rules

Make = Callable[..., Agent]
KNOWN = ("read", "write", "edit", "bash", "git")
READ, EDIT, EXECUTE = ("read", "read"), ("edit", "edit"), ("bash", "execute")


def is_allowed(approvals: Approvals, tool: str, effect: Any, /, **arguments: Any) -> bool:
    request = ev.ApprovalRequest("call_01", tool, effect, arguments, "because")
    decided = approvals.decide(request)
    while True:
        try:
            next(decided)
        except StopIteration as stop:
            return bool(stop.value.decision.behaviour != "deny")


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [
        ("ask", {READ}),
        ("accept-edits", {READ, EDIT}),
        ("plan", {READ}),
        ("auto", {READ, EDIT, EXECUTE}),
        ("deny", {READ}),
    ],
)
def test_what_each_mode_allows_when_nobody_can_be_asked(mode: Any, allowed: set[Any]) -> None:
    approvals = Approvals(mode)
    for tool, effect in (READ, EDIT, EXECUTE):
        arguments = {"command": "ls"} if tool == "bash" else {"path": "a"}
        assert is_allowed(approvals, tool, effect, **arguments) == ((tool, effect) in allowed)


def rules(*texts: str) -> Any:
    return parse_rules(texts, KNOWN)


def test_a_refusing_rule_wins_over_everything() -> None:
    approvals = Approvals("auto", allow=rules("bash"), deny=rules("bash(rm:*)"), yolo=True)
    assert is_allowed(approvals, "bash", "execute", command="ls")
    assert not is_allowed(approvals, "bash", "execute", command="rm -rf /")
    assert not is_allowed(approvals, "bash", "execute", command="ls && rm -rf /")
    assert not is_allowed(approvals, "bash", "execute", command="echo `rm -rf /`")


def test_a_rule_that_asks_wins_over_one_that_allows_and_over_the_mode() -> None:
    ruled: Any = {"allow": rules("bash(git:*)"), "ask": rules("bash(git push:*)")}
    for mode in ("ask", "auto", "accept-edits"):
        person = Person([ev.Decision("deny"), ev.Decision("allow")])
        approvals = Approvals(mode, approver=person, **ruled)
        assert is_allowed(approvals, "bash", "execute", command="git log")
        assert not is_allowed(approvals, "bash", "execute", command="git log; sudo git push")
        assert is_allowed(approvals, "bash", "execute", command="git push")
        assert len(person.asked) == 2
        assert not is_allowed(Approvals(mode, **ruled), "bash", "execute", command="git push")
    assert not is_allowed(Approvals("deny", **ruled), "bash", "execute", command="git push")


def test_a_refusing_rule_wins_over_one_that_asks_and_yolo_over_the_question() -> None:
    asking = rules("bash(git:*)")
    person = Person([])
    approvals = Approvals("ask", ask=asking, deny=rules("bash(git push)"), approver=person)
    assert not is_allowed(approvals, "bash", "execute", command="git push")
    assert is_allowed(Approvals("ask", ask=asking, yolo=True), "bash", "execute", command="git x")
    assert person.asked == []


def test_what_a_rule_asks_about_is_allowed_for_the_session_one_by_one() -> None:
    person = Person([ev.Decision("allow-session"), ev.Decision("deny")])
    approvals = Approvals("accept-edits", ask=rules("edit(secret/**)"), approver=person)
    assert is_allowed(approvals, "edit", "edit", path="secret/a")
    assert is_allowed(approvals, "edit", "edit", path="secret/./a")
    assert not is_allowed(approvals, "edit", "edit", path="secret/b")
    assert is_allowed(approvals, "edit", "edit", path="open/c")


def test_what_does_not_parse_is_not_allowed_by_rule_and_still_refused_by_rule() -> None:
    broken = "git log 'x; rm y"
    assert not is_allowed(Approvals("deny", allow=rules("bash(git:*)")), *BASH, command=broken)
    assert not is_allowed(Approvals("auto", deny=rules("bash(rm:*)")), *BASH, command=broken)
    assert is_allowed(Approvals("auto", deny=rules("bash(mv:*)")), *BASH, command=broken)


BASH: Any = ("bash", "execute")


def test_a_plan_stays_a_plan_whatever_the_rules_allow() -> None:
    assert not is_allowed(Approvals("plan", allow=rules("edit")), "edit", "edit", path="a")


@pytest.mark.parametrize(
    "command",
    [
        "git log; rm x",
        "git log && rm x",
        "git log | sh",
        "git log > /etc/passwd",
        "git log $(rm x)",
        "git log `rm x`",
        "git log\nrm x",
        "git log &",
        "git log ${IFS}x",
        "git logx",
        "VAR=1 git log",
        "git  log",
    ],
)
def test_a_pattern_never_allows_more_than_one_plain_command(command: str) -> None:
    approvals = Approvals("deny", allow=rules("bash(git log:*)"))
    assert not is_allowed(approvals, "bash", "execute", command=command)


def test_patterns_of_commands_paths_and_actions() -> None:
    approvals = Approvals(
        "deny", allow=rules("Bash(git log:*), bash(make test)", "edit(src/**)", "git(commit)")
    )
    assert is_allowed(approvals, "bash", "execute", command="git log --oneline -5")
    assert is_allowed(approvals, "bash", "execute", command="make test")
    assert not is_allowed(approvals, "bash", "execute", command="make tests")
    assert is_allowed(approvals, "edit", "edit", path="src/deep/a.py", old="a", new="b")
    assert is_allowed(approvals, "edit", "edit", path="./src/../src/a.py", old="a", new="b")
    assert not is_allowed(approvals, "edit", "edit", path="src/../setup.py", old="a", new="b")
    assert is_allowed(approvals, "git", "edit", action="commit", message="x")
    assert not is_allowed(approvals, "git", "edit", action="add", path=".")


@pytest.mark.parametrize("text", ["Bsh", "bash(", "(ls)", "edit;write"])
def test_a_rule_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"no tool|no permission rule"):
        parse_rules([text], KNOWN)


@dataclass
class Person:
    """An approver that answers from a list and remembers what it was asked."""

    answers: list[ev.Decision]
    asked: list[ev.ApprovalRequest] = field(default_factory=list)

    def decide(self, request: ev.ApprovalRequest) -> ev.Decision:
        self.asked.append(request)
        return self.answers.pop(0)


def test_the_approver_sees_exactly_what_will_run(
    make_agent: Make, play: SimpleNamespace, repo: Path
) -> None:
    person = Person([ev.Decision("allow")])
    agent = make_agent(
        play.call("write", path="a.txt", content="hi"),
        play.say("ok"),
        permission_mode="ask",
        approver=person,
    )
    events: list[Any] = list(agent.run("go"))
    assert person.asked[0].arguments == {"path": "a.txt", "content": "hi"}
    assert (repo / "a.txt").read_text() == "hi"
    kinds = [type(e) for e in events if isinstance(e, ev.ApprovalAsked | ev.ApprovalDecided)]
    assert kinds == [ev.ApprovalAsked, ev.ApprovalDecided]


def test_a_refusal_reaches_the_model_with_its_reason(
    make_agent: Make, play: SimpleNamespace, repo: Path
) -> None:
    person = Person([ev.Decision("deny", "not on a Friday")])
    agent = make_agent(
        play.call("write", path="a.txt", content="hi"),
        play.say("ok", expect="Error: the user refused this call: not on a Friday"),
        permission_mode="ask",
        approver=person,
    )
    events: list[Any] = list(agent.run("go"))
    assert events[-1].reason == "end"
    assert not (repo / "a.txt").exists()


def test_allowed_for_the_session_is_not_asked_again(
    make_agent: Make, play: SimpleNamespace
) -> None:
    person = Person([ev.Decision("allow-session"), ev.Decision("deny")])
    agent = make_agent(
        play.call("write", path="a.txt", content="1"),
        play.call("write", path="b.txt", content="2"),
        play.call("bash", command="ls"),
        play.say("ok"),
        permission_mode="ask",
        approver=person,
    )
    list(agent.run("go"))
    assert [request.tool for request in person.asked] == ["write", "bash"]


def test_the_mode_can_change_while_the_agent_runs(
    make_agent: Make, play: SimpleNamespace, repo: Path
) -> None:
    agent = make_agent(
        play.call("write", path="a.txt", content="1"), play.say("ok"), permission_mode="plan"
    )
    agent.mode = "auto"
    list(agent.run("go"))
    assert (repo / "a.txt").exists()


WRITE = {"path": "a.txt", "content": "hi"}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("echo allow", None),
        ("cat >/dev/null; echo 'deny too late'", "too late"),
        ("echo noise >&2; echo allow", None),
        ("echo maybe", "neither allow"),
        ("exit 3", "exit code 3"),
        ("echo allow; exit 3", "exit code 3"),
        ("echo allow everything", "neither allow"),
        ("/nonexistent/approver", "exit code 127"),
    ],
)
def test_an_approver_command_decides(
    ds4: Callable[..., SimpleNamespace],
    play: SimpleNamespace,
    repo: Path,
    command: str,
    reason: str | None,
) -> None:
    steps = [play.call("write", **WRITE), play.say("ok", expect=reason or "Created")]
    done = ds4(steps, "-p", "go", "--approver", command)
    assert done.code == 0, done.err
    assert (repo / "a.txt").exists() == (reason is None)


def test_an_approver_command_gets_the_request_as_json(
    ds4: Callable[..., SimpleNamespace], play: SimpleNamespace, repo: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "request.json"
    steps = [play.call("write", **WRITE), play.call("bash", command="ls"), play.say("ok")]
    done = ds4(steps, "-p", "go", "--approver", f"cat > {seen}; echo allow-session")
    assert done.code == 0
    request = json.loads(seen.read_text())
    assert (request["tool"], request["effect"]) == ("bash", "execute")
    assert request["arguments"] == {"command": "ls"}
    assert request["cwd"] == str(repo)


def test_the_approvals_log_has_each_request_and_decision(
    ds4: Callable[..., SimpleNamespace], play: SimpleNamespace, tmp_path: Path
) -> None:
    log = tmp_path / "approvals.jsonl"
    steps = [play.call("write", **WRITE), play.call("read", path="Makefile"), play.say("ok")]
    done = ds4(steps, "-p", "go", "--permission-mode", "ask", "--approvals-log", str(log))
    assert done.code == 0
    (record,) = map(json.loads, log.read_text().splitlines())
    assert (record["tool"], record["decision"], record["source"]) == ("write", "deny", "headless")
    assert record["arguments"] == WRITE


def test_ask_refuses_without_anybody_to_ask_unless_a_rule_allows(
    ds4: Callable[..., SimpleNamespace], play: SimpleNamespace, repo: Path
) -> None:
    ask = ("-p", "go", "--permission-mode", "ask")
    refused = [play.call("write", **WRITE), play.say("no", expect="nobody to ask")]
    assert ds4(refused, *ask).out == "no\n"
    assert not (repo / "a.txt").exists()
    allowed = [play.call("write", **WRITE), play.say("yes", expect="Created")]
    assert ds4(allowed, *ask, "--allowed-tools", "write(*.txt)").out == "yes\n"
    assert (repo / "a.txt").exists()


def test_the_rules_of_the_configuration_hold(
    ds4: Callable[..., SimpleNamespace], play: SimpleNamespace, home: Path
) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config/config.toml").write_text(
        "[permissions]\n"
        'allow = ["bash(echo:*)"]\n'
        'ask = ["bash(echo ask:*)"]\n'
        'deny = ["bash(echo no:*)", "bash(ls)"]\n'
    )
    steps = [
        play.call("bash", command="echo yes && echo 3"),
        play.call("bash", command="echo yes > file") | {"expect": "yes\n3"},
        play.call("bash", command="echo ask") | {"expect": "nobody to ask"},
        play.call("bash", command="echo yes; echo no") | {"expect": "asks first"},
        play.say("done", expect=r"the rule bash\(echo no:\*\) forbids it"),
    ]
    done = ds4(steps, "-p", "go", "--permission-mode", "ask")
    assert (done.code, done.out) == (0, "done\n"), done.err


def test_headless_changes_files_in_a_repository_and_says_so_once(
    ds4: Callable[..., SimpleNamespace], play: SimpleNamespace, repo: Path
) -> None:
    done = ds4([play.call("write", **WRITE), play.say("yes")], "-p", "go")
    assert (repo / "a.txt").exists()
    assert done.err.count("--permission-mode") == 1


def test_headless_outside_a_repository_changes_nothing_unasked(
    ds4: Callable[..., SimpleNamespace], play: SimpleNamespace, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    steps = [play.call("write", **WRITE), play.say("no", expect="not allowed")]
    done = ds4(steps, "-p", "go", "-C", str(plain))
    assert "no git repository" in done.err
    assert not (plain / "a.txt").exists()
    steps = [play.call("write", **WRITE), play.say("yes", expect="Created")]
    assert ds4(steps, "-p", "go", "-C", str(plain), "--yolo").out == "yes\n"
