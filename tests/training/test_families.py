"""A right run leaves exactly what was asked for: the end states of the families, from real runs."""

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.tasks import functions, history, lines
from training.tasks.families import CHAINS, ERRORS, FAMILIES, TaskSource, shared_pool
from training.tasks.phrasing import Phrasing, choose
from training.tasks.play import Episode, Player
from training.tasks.score import State, changed, state_of
from training.tasks.skeletons import FRAMES, SYNONYMS
from training.tasks.task import Ask, Git, Task
from training.tasks.vocabulary import Words


@pytest.fixture
def player(tmp_path: Path) -> Iterator[Player]:
    player = Player(tmp_path / "scratch")
    player.scratch.mkdir()
    yield player
    player.close()


@pytest.fixture
def source() -> TaskSource:
    return TaskSource(21, shared_pool(8))


def run(player: Player, task: Task) -> tuple[Episode, State, State]:
    """The episode of a task, and what stood there before and after."""
    before = state_of(player.prepared(task))
    episode = player.play(task)
    return episode, before, state_of(player.scratch / "work")


def do(player: Player, files: dict[str, str], policy: lines.Policy, git: Git | None = None) -> str:
    """Play one policy on files and return its answer."""
    task = Task("", files, (Ask("", lambda: policy),), git=git)
    return player.play(task).turns[-1].text


def text_of(player: Player, name: str) -> str:
    return (player.scratch / "work" / name).read_text(encoding="utf-8")


def test_an_appended_line_is_the_only_difference(player: Player, source: TaskSource) -> None:
    for _ in range(20):
        task = source.task("append")
        episode, before, after = run(player, task)
        (path,) = task.files
        line = re.fullmatch(r"Added `(.*)` to the end of .*", episode.turns[-1].text)
        assert line
        old = before.files[path].decode()
        has_end = old.endswith("\n") or not old
        kept = old if has_end else old + "\n"
        assert after.files[path].decode() == kept + line[1] + ("\n" if has_end else "")


@pytest.mark.parametrize("family", ["delete line", "delete line number"])
def test_one_line_is_deleted(family: str, player: Player, source: TaskSource) -> None:
    for _ in range(20):
        task = source.task(family)
        _, before, after = run(player, task)
        (path,) = task.files
        old, new = before.files[path].split(b"\n"), after.files[path].split(b"\n")
        if old != new:
            gone = next((i for i, x in enumerate(new) if old[i] != x), len(new))
            assert old[:gone] + old[gone + 1 :] == new


def test_an_import_keeps_the_file_in_order(player: Player) -> None:
    files = {"a.py": '"""Doc."""\nfrom __future__ import annotations\nimport os\n\nx = 1\n'}
    assert (
        do(player, files, lines.import_policy("a.py", "import re")) == "Added `import re` to a.py."
    )
    compile(text_of(player, "a.py"), "a.py", "exec")
    do(
        player,
        {"b.py": "#!/usr/bin/env python3\nx = 1\n"},
        lines.import_policy("b.py", "import re"),
    )
    assert text_of(player, "b.py") == "#!/usr/bin/env python3\nimport re\nx = 1\n"


def test_an_import_that_is_there_is_not_added(player: Player) -> None:
    said = do(player, {"a.py": "import re\n"}, lines.import_policy("a.py", "import re"))
    assert said == "`import re` is already in a.py."
    assert text_of(player, "a.py") == "import re\n"


@pytest.mark.parametrize(
    ("path", "line", "right"),
    [
        ("a.py", "LIMIT = 3", "LIMIT = 9"),
        ("a.py", "LIMIT: int = 3", "LIMIT: int = 9"),
        ("a.js", "export const LIMIT = 3;", "export const LIMIT = 9;"),
        ("a.yaml", "LIMIT: 3", "LIMIT: 9"),
        ("a.json", '"LIMIT": 3,', '"LIMIT": 9,'),
        ("a.env", "export LIMIT=3", "export LIMIT=9"),
    ],
)
def test_a_constant_is_changed_where_it_is_set(
    path: str, line: str, right: str, player: Player
) -> None:
    content = f"if LIMIT == 2:\n    pass\n{line}\nprint(LIMIT)\n"
    do(player, {path: content}, lines.constant_policy(path, "LIMIT", "9"))
    assert text_of(player, path) == content.replace(line, right)


def test_a_constant_is_found_without_its_file(player: Player, source: TaskSource) -> None:
    for _ in range(10):
        task = source.task("constant anywhere")
        _, before, after = run(player, task)
        assert len(changed(before, after)) == 1


def test_a_docstring_documents_the_function(player: Player) -> None:
    content = "class A:\n    def load_all(self):\n        return 1\n\ndef load():\n    return 2\n"
    do(player, {"a.py": content}, functions.docstring_policy("a.py", "load_all", None))
    tree = ast.parse(text_of(player, "a.py"))
    named = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert ast.get_docstring(named["load_all"]) == "load all."
    assert ast.get_docstring(named["load"]) is None


def test_a_rename_in_all_files_leaves_longer_names(player: Player) -> None:
    files = {"a.py": "load()\nload_all()\n", "b/c d.py": "x = load\n", "e.py": "reload()\n"}
    said = do(player, files, functions.everywhere_policy("load", "fetch"))
    assert said == "Renamed `load` to `fetch` in a.py (1 place), b/c d.py (1 place)."
    assert text_of(player, "a.py") == "fetch()\nload_all()\n"
    assert text_of(player, "e.py") == "reload()\n"


@pytest.mark.parametrize("family", ["change fails", "function fails", "read fails", "rename fails"])
def test_what_fails_changes_nothing(family: str, player: Player, source: TaskSource) -> None:
    for _ in range(15):
        _, before, after = run(player, source.task(family))
        assert before == after


def test_a_new_branch_is_made_and_entered_as_asked(player: Player) -> None:
    git = Git((("one", {"a.txt": "a\n"}),))
    assert do(player, {}, history.branch_policy("fix/b"), git) == "Created branch fix/b."
    assert state_of(player.scratch / "work").git[0] == "refs/heads/main\n"
    do(player, {}, history.switch_policy("fix/b"), git)
    assert state_of(player.scratch / "work").git[0] == "refs/heads/fix/b\n"


def test_only_the_named_file_is_committed(player: Player) -> None:
    git = Git((("one", {"a.txt": "a\n"}),), {"a.txt": "b\n", "c.txt": "c\n"})
    do(player, {}, history.commit_policy("a.txt", "Two words"), git)
    _, _, log, status, _ = state_of(player.scratch / "work").git
    assert "Two words" in log
    assert status == "?? c.txt\n"


def test_every_kind_of_family_exists() -> None:
    assert set(CHAINS) | set(ERRORS) <= set(FAMILIES)
    assert not set(CHAINS) & set(ERRORS)


@pytest.mark.parametrize("family", sorted(FRAMES))
def test_every_frame_has_each_text_whatever_is_chosen(family: str) -> None:
    rng = random.Random(1)
    phrases = FRAMES[family]
    wanted = set(re.findall(r"{(\w)}", phrases.train[0]))
    for frame in (*phrases.train, *phrases.held):
        for _ in range(5):
            found = re.findall(r"{(\w)}", choose(rng, frame))
            if family != "decline":  # has topics it may leave out
                assert set(found) == wanted, frame
        assert set(re.findall(r"<(\w+)>", frame)) <= set(SYNONYMS), frame


def test_held_out_requests_can_be_made_for_every_family() -> None:
    """Until a family has held-out frames, held-out synonyms in those of training have to do."""
    source = TaskSource(22, shared_pool(8, held=True), held=True)
    for family in FAMILIES:
        assert source.task(family).asks[0].text


def test_paths_and_texts_are_odd_now_and_then() -> None:
    words = Words(random.Random(3))
    paths = [words.path() for _ in range(2000)]
    assert all(any(sign in path for path in paths) for sign in " -é")
    fragments = [words.odd_fragment() for _ in range(300)]
    assert all(any(sign in text for text in fragments) for sign in "\t[{\"'\\")


def test_a_block_of_several_lines_is_given_in_fences() -> None:
    words = Words(random.Random(4))
    tasks = []
    while len(tasks) < 20:
        try:
            tasks.append(lines.replace_block(words, Phrasing(words.rng)))
        except ValueError:
            continue
    assert all(task.asks[0].text.count("```") == 4 for task in tasks)
    assert any("\n" in next(task.asks[0].policy()).arguments["old"] for task in tasks)
