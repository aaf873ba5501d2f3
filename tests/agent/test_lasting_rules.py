"""A rule for ever: only where it means just this call, and config.toml stays the user's."""

import stat
import tomllib
from pathlib import Path

import pytest

from ds4_agent.agent.approval import Approvals
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.events import ApprovalAsked, ApprovalRequest, Decision, Notice
from ds4_agent.agent.lasting_rules import add_allow_rule, rule_for
from ds4_agent.agent.rules import allowed_by, parse_rules

CONFIG = """\
# mine
model = "nano"  # the small one

[permissions]
allow = [
    "bash(git log:*)",  # reads only
]
deny = ["bash(sudo:*)"]
"""


@pytest.mark.parametrize(
    ("tool", "effect", "arguments", "outside", "rule"),
    [
        ("bash", "execute", {"command": "make test"}, "", "bash(make test)"),
        ("bash", "execute", {"command": "a && (b; c)"}, "", "bash(a && (b; c))"),
        ("edit", "edit", {"path": "./src//a.py", "old": "x"}, "", "edit(src/a.py)"),
        ("write", "edit", {"path": "../x"}, "/tmp/x", "write(/tmp/x)"),
        ("bash", "execute", {"command": "rm *.pyc"}, "", ""),
        ("bash", "execute", {"command": "echo :*"}, "", ""),
        ("bash", "execute", {"command": "echo ')' x"}, "", ""),
        ("bash", "execute", {"command": "a\nb"}, "", ""),
        ("bash", "execute", {"command": "echo \u202egnp"}, "", ""),
        ("bash", "execute", {"command": "sleep 9", "background": True}, "", ""),
        ("git", "execute", {"action": "commit", "message": "x"}, "", ""),
        ("git", "edit", {"action": "add", "path": "a.py"}, "", ""),
        ("edit", "execute", {"path": ".ds4/tools/a.py"}, "", ""),
        ("edit", "edit", {"path": "a[1].py"}, "", ""),
    ],
)
def test_the_rule_means_this_call_or_there_is_none(tool, effect, arguments, outside, rule):
    assert rule_for(tool, effect, arguments, outside) == rule
    if rule and tool == "bash":
        rules = parse_rules([rule], ["bash"])
        assert allowed_by(rules, "bash", arguments)
        assert not allowed_by(rules, "bash", {"command": arguments["command"] + " x"})


def test_comments_layout_mode_and_links_stay(tmp_path: Path):
    real = tmp_path / "dotfiles.toml"
    real.write_text(CONFIG)
    real.chmod(0o640)
    file = tmp_path / "config.toml"
    file.symlink_to(real)
    add_allow_rule(file, 'bash(echo "a")')
    add_allow_rule(file, 'bash(echo "a")')
    text = real.read_text()
    for kept in ("# mine", "# the small one", "# reads only", 'deny = ["bash(sudo:*)"]'):
        assert kept in text
    assert tomllib.loads(text)["permissions"]["allow"] == ["bash(git log:*)", 'bash(echo "a")']
    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.toml", "dotfiles.toml"]


def test_a_file_is_made_where_there_is_none(tmp_path: Path):
    file = tmp_path / "config" / "config.toml"
    add_allow_rule(file, "edit(a.py)")
    assert tomllib.loads(file.read_text()) == {"permissions": {"allow": ["edit(a.py)"]}}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["model = ", "permissions = 3", "[permissions]\nallow = 'x'"])
def test_a_file_that_is_wrong_is_left_alone(tmp_path: Path, text):
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"cannot add a rule to .*config\.toml"):
        add_allow_rule(file, "edit(a.py)")
    assert file.read_text() == text


class Always:
    def __init__(self) -> None:
        self.asked: list[ApprovalRequest] = []

    def decide(self, request: ApprovalRequest) -> Decision:
        self.asked.append(request)
        return Decision("allow-always")


def test_always_is_asked_once_and_writes_the_rule():
    approver, kept = Always(), []
    approvals = Approvals("ask", approver=approver, keep=lambda rule: kept.append(rule) or "told")
    request = ApprovalRequest("1", "bash", "execute", {"command": "make test"}, "why")
    events = list(approvals.decide(request))
    assert isinstance(events[0], ApprovalAsked)
    assert events[-1] == Notice("told")
    assert list(approvals.decide(request)) == []
    assert kept == ["bash(make test)"]
    assert len(approver.asked) == 1


def test_where_a_rule_asks_no_rule_is_offered():
    approver = Always()
    ask = parse_rules(["bash(make:*)"], ["bash"])
    approvals = Approvals("ask", ask=ask, approver=approver, keep=lambda rule: "told")
    request = ApprovalRequest("1", "bash", "execute", {"command": "make test"}, "why")
    assert Notice("told") not in list(approvals.decide(request))
    assert approver.asked[0].rule == ""
    list(approvals.decide(request))
    assert len(approver.asked) == 2
