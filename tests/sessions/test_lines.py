"""Logs are read line by line: what is damaged costs its line and nothing else."""

import json

from ds4_agent.sessions.lines import read_lines


def test_a_missing_file_is_empty(tmp_path):
    assert read_lines(tmp_path / "none.jsonl").records == ()


def test_a_damaged_line_costs_that_line(tmp_path):
    path = tmp_path / "log.jsonl"
    whole = [{"a": 1}, {"b": "é"}, {"c": [1, 2]}]
    lines = [json.dumps(record).encode() for record in whole]
    path.write_bytes(
        b"\n".join([lines[0], b"\xff\x00", lines[1], b"[1]", b'{"cut": ', b"", lines[2]])
    )
    read = read_lines(path)
    assert read.records == tuple(whole)
    assert read.damaged == 3
