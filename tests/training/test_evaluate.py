"""The evaluation tells right from wrong, through the product's own agent with a scripted model."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from ds4_agent.agent.config import Settings
from ds4_agent.engine.dsml.encode import call_segments
from ds4_agent.engine.dsml.segments import EOS, data, spell
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from training.evaluate import arguments_of, evaluate, held_tasks
from training.report import Outcome, below_bars, failures, table, wilson
from training.tasks.fronts import held_front
from training.tasks.generate import TOKENIZER
from training.tasks.history import commit_policy
from training.tasks.task import Ask, Call, Git, Policy, Task

FILES = {"src/api.py": "a = 3\nb = 4\n", "other.txt": "a = 3\n"}


def policy() -> Policy:
    result = yield Call("edit", {"path": "src/api.py", "old": "a = 3", "new": "a = 5"})
    return f"Done: {result.splitlines()[0]}"


TASK = Task("replace", FILES, (Ask("replace a = 3 with a = 5 in src/api.py", policy),))
RIGHT = Call("edit", {"path": "src/api.py", "old": "a = 3", "new": "a = 5"})
ANSWER = "Done: Edited src/api.py: 1 replacement, line 1"


def outcome(tmp_path: Path, steps: Sequence[Call | str], task: Task = TASK) -> Outcome:
    """How a task goes with a model that says exactly `steps`."""
    texts = [spell(call_segments([s])) if isinstance(s, Call) else s for s in steps]
    script = tmp_path / "script.jsonl"
    script.write_text("".join(json.dumps({"text": text + EOS}) + "\n" for text in texts))
    work = tmp_path / "work"
    work.mkdir()
    return next(evaluate([task], Settings(model=f"scripted:{script}"), work))


def test_right_calls_and_answer_are_right(tmp_path: Path) -> None:
    seen = outcome(tmp_path, [RIGHT, ANSWER])
    assert seen.is_right, seen.wrong
    assert seen.first_call
    assert seen.harmless


def test_a_wrong_argument_is_a_wrong_first_call(tmp_path: Path) -> None:
    wrong = Call("edit", {"path": "src/api.py", "old": "b = 4", "new": "a = 5"})
    seen = outcome(tmp_path, [wrong, ANSWER])
    assert not seen.first_call
    assert not seen.end
    assert not seen.is_right


def test_a_wrong_answer_is_told_from_a_wrong_call(tmp_path: Path) -> None:
    seen = outcome(tmp_path, [RIGHT, "Done."])
    assert seen.first_call
    assert seen.end
    assert not seen.answer


def test_another_way_to_the_same_end_is_right(tmp_path: Path) -> None:
    look = Call("read", {"path": "src/api.py"})
    whole = Call("write", {"path": "src/api.py", "content": "a = 5\nb = 4\n"})
    seen = outcome(tmp_path, [look, whole, ANSWER])
    assert seen.is_right, seen.wrong
    assert not seen.calls


def test_the_repository_is_part_of_the_end(tmp_path: Path) -> None:
    git = Git((("one", {"a.txt": "a\n"}),), {"a.txt": "b\n"})
    task = Task("add, commit", {}, (Ask("commit", lambda: commit_policy("a.txt", "Two")),), git=git)
    add = Call("git", {"action": "add", "path": "a.txt"})
    right = Call("git", {"action": "commit", "message": "Two"})
    wrong = Call("git", {"action": "commit", "message": "Three"})
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    # The hash in the answer is that of another commit: it holds the time.
    said = "Committed 1234567: Two (1 file)."
    seen = outcome(tmp_path / "one", [add, right, said], task)
    assert seen.is_right, seen.wrong
    assert not outcome(tmp_path / "two", [add, wrong, said], task).end


def test_failures_can_be_read(tmp_path: Path) -> None:
    text = failures([outcome(tmp_path, [RIGHT, "Done."])])
    assert "## replace" in text
    assert "answer: Done." in text
    assert "the answer should be 'Done: Edited src/api.py: 1 replacement, line 1'" in text


def made(family: str, *, is_right: bool, harmless: bool = True) -> Outcome:
    return Outcome(family, is_right, is_right, harmless, is_right, is_right, 0.1, ())


def test_bars_are_those_of_the_kind_of_family() -> None:
    nine = [made("append", is_right=number > 0) for number in range(10)]
    assert not below_bars(nine)  # a chain
    nine = [made("replace", is_right=number > 0) for number in range(10)]
    assert below_bars(nine) == ["replace: 9 of 10 right, the bar is 0.97"]
    assert below_bars([made("read", is_right=True, harmless=False)]) == [
        "1 tasks changed a file they were not asked to touch"
    ]
    assert "chains (bar 0.90)" in table([made("append", is_right=True)])


def test_a_front_has_the_tokens_asked_for_and_stands_before_the_prompt(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(TOKENIZER)
    texts = [held_front(tokenizer, 1500, number) for number in range(2)]
    assert texts[0] != texts[1]
    assert all(1480 <= len(tokenizer.encode([data(text)])) <= 1500 for text in texts)


def test_families_are_named_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments_of(["--families", "replace, show; read"]).families == ("replace, show", "read")
    assert len(arguments_of([]).families) > 40
    with pytest.raises(SystemExit):
        arguments_of(["--families", "juggle"])
    assert "no family 'juggle'" in capsys.readouterr().err


def test_no_call_at_all_is_a_wrong_first_call(tmp_path: Path) -> None:
    assert not outcome(tmp_path, [ANSWER]).first_call


def test_damage_to_another_file_is_seen(tmp_path: Path) -> None:
    harm = Call("write", {"path": "other.txt", "content": "gone"})
    assert not outcome(tmp_path, [RIGHT, harm, ANSWER]).harmless


def test_held_out_tasks_repeat_with_the_seed() -> None:
    families = ("replace", "run tests")
    texts = [[a.text for t in held_tasks(families, 3, 5) for a in t.asks] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 6


@pytest.mark.parametrize(("hits", "total", "low", "high"), [(50, 50, 0.929, 1.0), (0, 0, 0.0, 1.0)])
def test_wilson_interval(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=0.001)
