"""Commands of the user's own: found, trusted, filled."""

from pathlib import Path

import pytest

from ds4_agent.agent.places import Places, find_places
from ds4_agent.agent.trust import repository_of, trust
from ds4_agent.agent.user_commands import UserCommand, filled, load_commands


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return find_places({"DS4_HOME": str(tmp_path / "home")})


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / ".git").mkdir(parents=True)
    return root


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_file_is_a_command_with_its_description(places, repo):
    write(
        places.config / "commands/review.md",
        "---\ndescription: look at the changes\nargument-hint: [file]\n---\nReview $ARGUMENTS.\n",
    )
    write(places.config / "commands/git/log.md", "# Tell the log\n\nShow the log.")
    found = load_commands(repo, places, ()).found
    assert [(c.name, c.description) for c in found] == [
        ("git:log", "Tell the log"),
        ("review", "[file] · look at the changes"),
    ]
    assert found[1].body == "Review $ARGUMENTS."


def test_a_repository_brings_commands_only_when_it_is_trusted(places, repo):
    write(repo / ".ds4/commands/deploy.md", "Deploy.")
    before = load_commands(repo, places, ())
    assert before.found == ()
    assert "1 of this repository's own commands" in before.notices[0]
    trust(repository_of(repo), places.trusted_file)
    after = load_commands(repo, places, ())
    assert [c.name for c in after.found] == ["deploy"]
    assert not after.notices


def test_the_users_own_command_wins_and_the_programs_stays(places, repo):
    trust(repository_of(repo), places.trusted_file)
    write(repo / ".ds4/commands/review.md", "theirs")
    write(places.config / "commands/review.md", "mine")
    write(places.config / "commands/quit.md", "never")
    found = load_commands(repo, places, ("quit",))
    assert [(c.name, c.body) for c in found.found] == [("review", "mine")]
    assert "/quit is a command of the program" in found.notices[0]


def test_links_of_a_repository_are_not_followed(places, repo, tmp_path):
    trust(repository_of(repo), places.trusted_file)
    write(tmp_path / "secret.md", "secret")
    (repo / ".ds4/commands").mkdir(parents=True)
    (repo / ".ds4/commands/leak.md").symlink_to(tmp_path / "secret.md")
    assert load_commands(repo, places, ()).found == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"\xff\xfe", "not UTF-8"), (b"---\na: b\n---\n", "empty"), (b"x" * 70_000, "64 KiB")],
)
def test_a_file_that_is_none_is_said(places, repo, data, said):
    write(places.config / "commands/bad.md", "")
    (places.config / "commands/bad.md").write_bytes(data)
    found = load_commands(repo, places, ())
    assert found.found == ()
    assert said in found.notices[0]


@pytest.mark.parametrize(
    ("body", "arguments", "prompt"),
    [
        ("Fix $ARGUMENTS now", "a b", "Fix a b now"),
        ("Move $1 to $2", "'x y' z", "Move x y to z"),
        ("Say $1|$3", "one", "Say one|"),
        ("Costs $10 and $ARGUMENTS_X", "a", "Costs $10 and $ARGUMENTS_X\n\na"),
        ("Echo $ARGUMENTS", "$1 $ARGUMENTS", "Echo $1 $ARGUMENTS"),
        ("Quote $1", "it's", "Quote it's"),
        ("No place", "", "No place"),
    ],
)
def test_arguments_are_put_in(body, arguments, prompt):
    assert filled(UserCommand("c", "", body, True), arguments) == prompt
