"""The picture of a run: one point a logged step, and a picture a browser can read."""

import json
from xml.etree import ElementTree

from training.curve import curve, points


def test_a_step_that_was_trained_again_counts_once(tmp_path):
    log = tmp_path / "log.jsonl"
    entries = [
        {"step": 20, "tokens": 1000, "seconds": 1, "loss": 6.0, "rate": 0.5},
        {"step": 40, "tokens": 2000, "seconds": 2, "loss": 5.0, "rate": 1.0},
        {"step": 40, "tokens": 2000, "seconds": 2, "held": {"call": "1/2"}},
        {"step": 40, "tokens": 2000, "seconds": 3, "loss": 4.0, "rate": 1.0},
    ]
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert points(log) == [(1000, 6.0, 0.5), (2000, 4.0, 1.0)]


def test_the_picture_is_xml_with_a_line_that_falls(tmp_path):
    picture = curve([(1e4, 7.0, 0.1), (1e6, 0.5, 1.0), (2e7, 0.04, 0.02)], "loss")
    lines = ElementTree.fromstring(picture).findall("{http://www.w3.org/2000/svg}polyline")
    places = [tuple(map(float, place.split(","))) for place in lines[0].get("points").split()]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted(y for _, y in places)  # downwards
    assert len(lines) == 2
