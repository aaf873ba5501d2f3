"""A path that leads out of the workspace is asked about in every mode, and only it is opened."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.loop import Agent

Make = Callable[..., Agent]


@dataclass
class Person:
    """Answers every question alike and remembers them."""

    behaviour: ev.Behaviour = "allow"
    asked: list[ev.ApprovalRequest] = field(default_factory=list)

    def decide(self, request: ev.ApprovalRequest) -> ev.Decision:
        self.asked.append(request)
        return ev.Decision(self.behaviour)


@pytest.fixture
def note(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    note = tmp_path / "elsewhere/note.txt"
    note.write_text("remember milk\n")
    return note


def contents(agent: Agent) -> list[str]:
    return [e.content for e in agent.run("go") if isinstance(e, ev.CallFinished)]


@pytest.mark.parametrize("mode", ["ask", "accept-edits", "plan", "auto"])
def test_every_mode_asks_before_it_reads(
    make_agent: Make, play: SimpleNamespace, note: Path, mode: str
) -> None:
    person = Person()
    steps = [play.call("read", path=str(note)), play.say("ok")]
    agent = make_agent(*steps, approver=person, permission_mode=mode)
    (content,) = contents(agent)
    assert "remember milk" in content
    (request,) = person.asked
    assert (request.outside, request.reason) == (
        str(note),
        f"reads outside the workspace: {note}",
    )


@pytest.mark.parametrize("behaviour", ["deny", None])
def test_without_a_yes_nothing_is_opened(
    make_agent: Make, play: SimpleNamespace, note: Path, behaviour: ev.Behaviour | None
) -> None:
    steps = [
        play.call("read", path=str(note)),
        play.call("write", path=f"{note}.new", content="x"),
        play.call("edit", path=str(note), old="milk", new="tea"),
        play.call("list", path=".."),
        play.call("search", pattern="milk", path="../elsewhere"),
        play.say("ok"),
    ]
    approver = Person(behaviour) if behaviour else None
    told = contents(make_agent(*steps, approver=approver))
    assert len(told) == 5
    assert all(text.startswith("Error: ") and "milk" not in text for text in told)
    assert all("outside the workspace" in text for text in told) or approver
    assert [path.name for path in note.parent.iterdir()] == ["note.txt"]
    assert note.read_text() == "remember milk\n"


def test_a_link_in_the_workspace_is_asked_about_by_where_it_leads(
    make_agent: Make, play: SimpleNamespace, note: Path, repo: Path
) -> None:
    (repo / "src/link").symlink_to(note)
    person = Person("deny")
    agent = make_agent(
        play.call("read", path="src/link"),
        play.say("ok"),
        approver=person,
        allowed_tools=("read", "read(src/**)"),
    )
    contents(agent)
    assert person.asked[0].outside == str(note)


def test_a_link_turned_elsewhere_after_the_yes_is_not_followed(
    make_agent: Make, play: SimpleNamespace, note: Path, repo: Path
) -> None:
    link, secret = repo / "link", note.with_name("secret.txt")
    secret.write_text("hunter2\n")
    link.symlink_to(note)

    class Turner(Person):
        def decide(self, request: ev.ApprovalRequest) -> ev.Decision:
            link.unlink()
            link.symlink_to(secret)
            return super().decide(request)

    agent = make_agent(play.call("read", path="link"), play.say("ok"), approver=Turner())
    (content,) = contents(agent)
    assert content == "Error: link is outside the workspace"


def test_a_yes_for_one_path_opens_no_other(
    make_agent: Make, play: SimpleNamespace, note: Path
) -> None:
    other = note.with_name("other.txt")
    other.write_text("x\n")
    person = Person("allow-session")
    steps = [
        play.call("read", path=str(note)),
        play.call("read", path=str(note), start_line=1),
        play.call("read", path=str(other)),
        play.call("edit", path=str(note), old="milk", new="tea"),
        play.say("ok"),
    ]
    contents(make_agent(*steps, approver=person))
    asked = [(request.tool, request.outside) for request in person.asked]
    assert asked == [("read", str(note)), ("read", str(other)), ("edit", str(note))]


def test_a_rule_for_the_real_path_allows_and_forbids(
    make_agent: Make, play: SimpleNamespace, note: Path
) -> None:
    read = [play.call("read", path=f"../elsewhere/{note.name}"), play.say("ok")]
    rule = f"read({note.parent}/**)"
    (content,) = contents(make_agent(*read, allowed_tools=(rule,)))
    assert "remember milk" in content
    (content,) = contents(make_agent(*read, disallowed_tools=(rule,), yolo=True))
    assert "forbids" in content


# Commands: nobody can know where one goes, but whoever is asked sees what can be seen.


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("ls -la src", ()),
        ("cat src/client.py 2>/dev/null | sed -n /foo/d", ()),
        ("cat <<E\n/etc/passwd\nE", ()),
        ("cat /etc/passwd", ("/etc/passwd",)),
        ("true; { cat '/etc/passwd' \"/etc/hosts\"; }", ("/etc/passwd", "/etc/hosts")),
        ("tar --file=/etc/passwd", ("/etc/passwd",)),
        ("X=/etc/passwd make", ("/etc/passwd",)),
        ("for f in /etc/passwd; do cat $f; done", ("/etc/passwd",)),
        ("cd .. && rm -r x", ("{parent}",)),
        ("echo x > ../y", ("{parent}/y",)),
        ("cat link", ("/etc/passwd",)),
        ('cat "$HOME/x" ~/y ${HOME}/z', ("{home}/x", "{home}/y", "{home}/z")),
    ],
)
@pytest.mark.parametrize("mode", ["ask", "accept-edits"])
def test_a_command_is_asked_about_with_where_it_runs_and_what_it_names_elsewhere(
    make_agent: Make,
    play: SimpleNamespace,
    repo: Path,
    command: str,
    named: tuple[str, ...],
    mode: str,
) -> None:
    (repo / "link").symlink_to("/etc/passwd")
    person = Person("deny")
    steps = [play.call("bash", command=command), play.say("ok")]
    contents(make_agent(*steps, approver=person, permission_mode=mode))
    (request,) = person.asked
    words = [name.format(parent=repo.parent, home=Path.home()) for name in named]
    where = f"runs a command in {repo}"
    elsewhere = f"; it names {', '.join(words)} outside the workspace"
    assert request.reason == where + (elsewhere if words else "")


def test_what_was_changed_there_is_undone(
    make_agent: Make, play: SimpleNamespace, note: Path, ds4: Callable[..., SimpleNamespace]
) -> None:
    edit = play.call("edit", path=str(note), old="milk", new="tea")
    agent = make_agent(edit, play.say("ok"), approver=Person())
    contents(agent)
    assert note.read_text() == "remember tea\n"
    agent.close()
    assert ds4([], "--undo").out == f"restored {os.fspath(note)}\n"
    assert note.read_text() == "remember milk\n"
