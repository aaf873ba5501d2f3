"""The evaluation tells right from wrong, through the product's own agent with a scripted model."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from ds4_agent.agent.config import Settings
from ds4_agent.engine.dsml.encode import call_segments
from ds4_agent.engine.dsml.segments import EOS, spell
from training.evaluate import Outcome, evaluate, held_tasks, wilson
from training.tasks.task import Ask, Call, Policy, Task

FILES = {"src/api.py": "a = 3\nb = 4\n", "other.txt": "a = 3\n"}


def policy() -> Policy:
    result = yield Call("edit", {"path": "src/api.py", "old": "a = 3", "new": "a = 5"})
    return f"Done: {result.splitlines()[0]}"


TASK = Task("replace", FILES, (Ask("replace a = 3 with a = 5 in src/api.py", policy),))
RIGHT = Call("edit", {"path": "src/api.py", "old": "a = 3", "new": "a = 5"})
ANSWER = "Done: Edited src/api.py: 1 replacement, line 1"


def outcome(tmp_path: Path, steps: Sequence[Call | str]) -> Outcome:
    """How TASK goes with a model that says exactly `steps`."""
    texts = [spell(call_segments([s])) if isinstance(s, Call) else s for s in steps]
    script = tmp_path / "script.jsonl"
    script.write_text("".join(json.dumps({"text": text + EOS}) + "\n" for text in texts))
    work = tmp_path / "work"
    work.mkdir()
    return next(evaluate([TASK], Settings(model=f"scripted:{script}"), work))


def test_right_calls_and_answer_are_right(tmp_path: Path) -> None:
    seen = outcome(tmp_path, [RIGHT, ANSWER])
    assert seen.is_right, seen.wrong
    assert seen.first_call
    assert seen.harmless


def test_a_wrong_argument_is_a_wrong_first_call(tmp_path: Path) -> None:
    wrong = Call("edit", {"path": "src/api.py", "old": "b = 4", "new": "a = 5"})
    seen = outcome(tmp_path, [wrong, ANSWER])
    assert not seen.first_call
    assert not seen.files
    assert not seen.is_right


def test_a_wrong_answer_is_told_from_a_wrong_call(tmp_path: Path) -> None:
    seen = outcome(tmp_path, [RIGHT, "Done."])
    assert seen.first_call
    assert seen.files
    assert not seen.answer


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
