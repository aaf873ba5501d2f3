"""The file that remembers verdicts is a cache: whatever is wrong with it means trying again."""

import json
import os

import pytest

from ds4_agent.engine.model.kernels.verdicts import Verdict, Verdicts

KEY, MACHINE = "top_rows 0123", "a chip"
USED = Verdict("top_rows", True, "", 1e-7)

DAMAGED = {
    "empty": b"",
    "cut off": b'{"machine": "a chip", "verdicts": {"top_rows 0123": {"kern',
    "no text": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "of another machine": json.dumps(
        {"machine": "another", "verdicts": {KEY: {"kernel": "top_rows", "is_used": True}}}
    ).encode(),
    "no verdicts": b'{"machine": "a chip"}',
    "verdicts of another form": b'{"machine": "a chip", "verdicts": [1]}',
    "a verdict of another form": json.dumps(
        {"machine": MACHINE, "verdicts": {KEY: {"kernel": "top_rows", "good": True}}}
    ).encode(),
    "a verdict that is none": json.dumps({"machine": MACHINE, "verdicts": {KEY: 7}}).encode(),
    "a trial of another form": json.dumps(
        {"machine": MACHINE, "verdicts": {KEY: {"trying": "me", "times": "many"}}}
    ).encode(),
    "a verdict of strange values": json.dumps(
        {"machine": MACHINE, "verdicts": {KEY: {"kernel": 1, "is_used": "no", "reason": 3}}}
    ).encode(),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_is_not_ours_means_trying_again(tmp_path, name):
    path = tmp_path / "kernels.json"
    path.write_bytes(DAMAGED[name])
    verdicts = Verdicts(path, MACHINE)

    assert verdicts.known(KEY) is None
    assert verdicts.begin(KEY)
    verdicts.end(KEY, USED)

    assert Verdicts(path, MACHINE).known(KEY) == USED


def test_a_place_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")

    for path in (tmp_path / "file" / "kernels.json", tmp_path):  # below a file; a directory
        verdicts = Verdicts(path, MACHINE)
        assert verdicts.begin(KEY)
        verdicts.end(KEY, USED)
        assert verdicts.known(KEY) is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_rights_is_no_error(tmp_path):
    tmp_path.chmod(0o500)
    verdicts = Verdicts(tmp_path / "kernels.json", MACHINE)

    assert verdicts.begin(KEY)
    verdicts.end(KEY, USED)

    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o700)


def test_without_a_path_nothing_is_remembered():
    verdicts = Verdicts(None, MACHINE)

    assert verdicts.begin(KEY)
    verdicts.end(KEY, USED)

    assert verdicts.known(KEY) is None
    assert verdicts.begin(KEY)


def test_verdicts_of_others_stay(tmp_path):
    path = tmp_path / "kernels.json"
    off = Verdict("taken_rows", False, "differs by 2, allowed 0", 2.0)

    Verdicts(path, MACHINE).end(KEY, USED)
    Verdicts(path, MACHINE).end("taken_rows 4567", off)

    assert Verdicts(path, MACHINE).known(KEY) == USED
    assert Verdicts(path, MACHINE).known("taken_rows 4567") == off


def test_one_process_may_try_side_by_side_with_another_that_lives(tmp_path):
    """Only where those that tried are gone is it their fault: two sessions start together."""
    path = tmp_path / "kernels.json"
    verdicts = Verdicts(path, MACHINE)

    assert [verdicts.begin(KEY) for _ in range(4)] == [True] * 4


def test_a_trial_that_ends_well_forgets_one_that_did_not(tmp_path):
    path = tmp_path / "kernels.json"
    gone = {"machine": MACHINE, "verdicts": {KEY: {"trying": 2**22 + 1, "times": 1}}}
    path.write_text(json.dumps(gone))

    verdicts = Verdicts(path, MACHINE)
    assert verdicts.begin(KEY)
    verdicts.end(KEY, USED)

    assert "times" not in json.loads(path.read_text())["verdicts"][KEY]
