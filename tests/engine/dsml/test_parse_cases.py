"""Every shared parse case, for every split of its ids: whole, byte by byte, and cut anywhere."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ds4_agent.engine.dsml.events import (
    AnswerText,
    ArgumentText,
    CallFinished,
    CallStarted,
    Parsed,
    ParseEvent,
    ThinkingText,
)
from ds4_agent.engine.dsml.segments import markup
from ds4_agent.engine.dsml.tokenizer import Tokenizer

CASES = json.loads(
    (Path(__file__).resolve().parents[2] / "cases" / "parse.json").read_text(encoding="utf-8")
)["cases"]
SMALL = [case for case in CASES if len(case.get("raw", "-" * 9999)) < 1000]


def case_ids(tokenizer: Tokenizer, case: dict) -> list[int]:
    if "ids" in case:
        return case["ids"]
    made = case.get("raw_gen")
    raw = made["prefix"] + made["unit"] * made["count"] + made["suffix"] if made else case["raw"]
    return tokenizer.encode(markup(raw))


def in_bytes(tokenizer: Tokenizer, ids: list[int]) -> list[list[int]]:
    """Each id as the ids of its single bytes; a control id stays itself."""
    one_byte = {bytes(piece): i for piece, i in tokenizer.vocabulary if len(piece) == 1}
    return [
        [i] if i in tokenizer.control_ids else [one_byte[bytes((b,))] for b in tokenizer.piece(i)]
        for i in ids
    ]


def splits(tokenizer: Tokenizer, ids: list[int]) -> Iterator[list[int]]:
    """Other id streams of the same text: all bytes, each id alone in bytes, seeded mixtures."""
    parts = in_bytes(tokenizer, ids)
    yield [i for part in parts for i in part]
    for at in range(len(ids)):
        yield [*ids[:at], *parts[at], *ids[at + 1 :]]
    for seed in range(10):
        rng = random.Random(seed)
        yield [
            i for whole, part in zip(ids, parts, strict=True) for i in rng.choice([[whole], part])
        ]


def as_expected(parsed: Parsed, expected: dict) -> dict[str, Any]:
    """The parsed turn in the words of the case, with the fields it speaks of."""
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in parsed.calls]
    if any("content_sha256" in call["arguments"] for call in expected["calls"]):
        for call in calls:
            digest = hashlib.sha256(call["arguments"].pop("content").encode()).hexdigest()
            call["arguments"]["content_sha256"] = digest
    found: dict[str, Any] = {
        "reasoning": parsed.reasoning,
        "content": parsed.content,
        "calls": calls,
        "error": parsed.error,
    }
    if "repaired" in expected or parsed.repaired:
        found["repaired"] = parsed.repaired
    if "in_thinking" in expected or parsed.in_thinking:
        found["in_thinking"] = parsed.in_thinking
    if "partial" in expected and parsed.partial:
        arguments = dict(parsed.partial.arguments)
        found["partial"] = {"name": parsed.partial.name, "arguments": arguments}
    return found


def joined(events: tuple[ParseEvent, ...]) -> list[Any]:
    """Events with neighbouring deltas of one text made one: what every split must agree on."""
    merged: list[Any] = []
    for event in events:
        if isinstance(event, ThinkingText | AnswerText):
            key = (type(event).__name__,)
        elif isinstance(event, ArgumentText):
            key = ("ArgumentText", event.index, event.name)
        else:
            merged.append(event)
            continue
        if merged and isinstance(merged[-1], list) and merged[-1][0] == key:
            merged[-1][1].append(event.text)
        else:
            merged.append([key, [event.text]])
    return [(item[0], "".join(item[1])) if isinstance(item, list) else item for item in merged]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(v4: Tokenizer, run_parser: Callable, case: dict) -> None:
    ids = case_ids(v4, case)
    run = run_parser(v4, ids, thinking=case["thinking"], finish=case["finish"])
    expected = {key: value for key, value in case["expected"].items() if key != "note"}
    assert as_expected(run.parsed, expected) == expected
    assert (run.parsed.error is None) == (run.parsed.detail is None)
    assert_deltas_are_the_values(run.parsed, run.events)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case["id"])
def test_case_for_every_split(v4: Tokenizer, run_parser: Callable, case: dict) -> None:
    ids = case_ids(v4, case)
    options = {"thinking": case["thinking"], "finish": case["finish"]}
    whole = run_parser(v4, ids, **options)
    for split in splits(v4, ids):
        run = run_parser(v4, split, **options)
        assert joined(run.events) == joined(whole.events)
        assert_same(run.parsed, whole.parsed)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case["id"])
def test_case_cut_anywhere_runs_nothing_unfinished(
    v4: Tokenizer, run_parser: Callable, case: dict
) -> None:
    """What was certain before the cut stays so, and a call counts only in a closed block."""
    ids = case_ids(v4, case)
    whole = run_parser(v4, ids, thinking=case["thinking"], finish=case["finish"])
    for at in range(len(ids)):
        cut = run_parser(v4, ids[:at], thinking=case["thinking"], finish="length")
        assert_deltas_are_the_values(cut.parsed, cut.events)
        assert not cut.parsed.calls or cut.block_closed
        sure = joined(cut.events[: len(cut.events) - len(cut.parsed.remaining)])
        assert all(_agrees(event, joined(whole.events)) for event in sure)


def assert_same(one: Parsed, other: Parsed) -> None:
    fields = ("reasoning", "content", "calls", "error", "repaired", "in_thinking", "partial")
    assert {f: getattr(one, f) for f in fields} == {f: getattr(other, f) for f in fields}


def assert_deltas_are_the_values(parsed: Parsed, events: tuple[ParseEvent, ...]) -> None:
    assert "".join(e.text for e in events if isinstance(e, ThinkingText)) == parsed.reasoning
    assert "".join(e.text for e in events if isinstance(e, AnswerText)) == parsed.content
    assert all(e.text for e in events if isinstance(e, ThinkingText | AnswerText | ArgumentText))
    finished = [event for event in events if isinstance(event, CallFinished)]
    started = [event for event in events if isinstance(event, CallStarted)]
    assert [event.index for event in started] == list(range(len(started)))
    if not parsed.error:
        assert tuple(event.call for event in finished) == parsed.calls
    texts = {event[0]: event[1] for event in joined(events) if isinstance(event, tuple)}
    for event in finished:
        for name, value in event.call.arguments.items():
            text = texts.get(("ArgumentText", event.index, name), "")
            assert text == value or json.loads(text) == value


def _agrees(event: Any, whole: list[Any]) -> bool:
    if not isinstance(event, tuple):
        return event in whole
    return any(
        isinstance(other, tuple) and other[0] == event[0] and other[1].startswith(event[1])
        for other in whole
    )
