"""Logs are read line by line: what is damaged costs its line and nothing else."""

import json

import pytest

from ds4_agent.sessions.lines import TOGETHER, read_lines


def test_a_missing_file_is_empty(tmp_path):
    assert read_lines(tmp_path / "none.jsonl").records == ()


def test_several_damaged_lines_cost_as_many(tmp_path):
    path = tmp_path / "log.jsonl"
    whole = [{"a": 1}, {"b": "é"}, {"c": [1, 2]}]
    lines = [json.dumps(record).encode() for record in whole]
    path.write_bytes(
        b"\n".join([lines[0], b"\xff\x00", lines[1], b"[1]", b'{"cut": ', b"", lines[2]])
    )
    read = read_lines(path)
    assert read.records == tuple(whole)
    assert read.damaged == 3


@pytest.mark.parametrize("place", [0, 1, TOGETHER - 1, TOGETHER, 2 * TOGETHER + 5])
@pytest.mark.parametrize(
    "damage",
    [
        b'{"n":1',  # broken off
        b'{"n":1}}',
        b'{"n":1},{"n":2}',  # two where one should be
        b'{"n":"\xff"}',
        b"[{}]",
        b"{" * 2000 + b"}" * 2000,
    ],
)
def test_a_damaged_line_costs_that_line(tmp_path, damage, place):
    log = tmp_path / "log.jsonl"
    lines = [json.dumps({"n": n}).encode() for n in range(2 * TOGETHER + 9)]
    log.write_bytes(b"\n".join([*lines[:place], damage, *lines[place:]]) + b"\n")
    read = read_lines(log)
    assert [record["n"] for record in read.records] == list(range(len(lines)))
    assert read.damaged == 1


def test_two_halves_do_not_make_a_whole(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"n":0}\n{"a":{"b":1}\n"c":{"d":2}}\n{"n":3}\n')
    read = read_lines(log)
    assert [record["n"] for record in read.records] == [0, 3]
    assert read.damaged == 2
